using System.Diagnostics.CodeAnalysis;
using System.Net;
using System.Net.Sockets;
using Microsoft.Extensions.Logging;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>Waits for a guest and takes it in: it runs as soon as its machine state is here.</summary>
public sealed class MigrationDestination : IDisposable
{
    /// <summary>How long a source that does not know yet that its guest is whole here is waited for: the guest doesn't need it.</summary>
    private static readonly TimeSpan s_wholePatience = TimeSpan.FromSeconds(30);

    private readonly Func<MigrationLayout, IArrivingGuest> _prepare;
    private readonly ILogger? _logger;
    private readonly ConnectionListener _listener;
    private readonly Lock _receiving = new();
    private volatile IncomingSession _session;
    private IArrivingGuest? _takenOver;
    private volatile bool _isDisposed;

    /// <summary>Listens.</summary>
    /// <param name="listen">An address and a port, 0 for any.</param>
    /// <param name="prepare">Makes room for a guest; an exception's message goes to the source, where the guest goes on.</param>
    /// <param name="logger">Hears of sources that were turned away; null for nobody.</param>
    /// <param name="versions">The protocol versions to speak; null for all this build knows.</param>
    /// <param name="security">Who this side is and whom it trusts: every connection is then under TLS. Null for connections without TLS, from loopback only.</param>
    /// <param name="insecureNetwork">
    /// Whether to listen beyond loopback without TLS. Anyone on the way can then read and change the guest's memory and machine state, and
    /// anyone who reaches the port can send a guest.
    /// </param>
    /// <exception cref="ArgumentException">The address is beyond loopback, and there is neither a security nor <paramref name="insecureNetwork"/>.</exception>
    /// <exception cref="SocketException">The port is in use.</exception>
    public MigrationDestination(
        IPEndPoint listen,
        Func<MigrationLayout, IArrivingGuest> prepare,
        ILogger? logger = null,
        VersionRange? versions = null,
        MigrationSecurity? security = null,
        bool insecureNetwork = false)
        : this(listen, prepare, logger, versions ?? VersionRange.Current, security, insecureNetwork, isRehearsal: false)
    {
    }

    /// <summary>Goes on in another process than the one that listens, or listened, and that runs the guest.</summary>
    /// <param name="listening">What <see cref="Listen"/> made there; owned by this one.</param>
    /// <param name="prepare">Makes room for a guest.</param>
    /// <param name="held">
    /// A guest that another process was taking in when it died, with its record (<see cref="IArrivingGuest.Record"/>): its source is waited for. Null if there is none.
    /// </param>
    /// <param name="logger">Hears of sources that were turned away; null for nobody.</param>
    /// <param name="security">Who this side is and whom it trusts; null for connections without TLS.</param>
    public MigrationDestination(Socket listening, Func<MigrationLayout, IArrivingGuest> prepare, IArrivingGuest? held, ILogger? logger, MigrationSecurity? security)
    {
        _prepare = prepare;
        _logger = logger;
        _session = new IncomingSession(prepare);
        _takenOver = held;
        if (held is null)
        {
            // A guest that is here already doesn't wait for a rehearsal.
            Rehearsal.Once();
        }

        _listener = new ConnectionListener(listening, held?.Record?.Session ?? SessionId.None, VersionRange.Current, security, logger, MigrationSource.Patience);
    }

    internal MigrationDestination(
        IPEndPoint listen,
        Func<MigrationLayout, IArrivingGuest> prepare,
        ILogger? logger,
        VersionRange versions,
        MigrationSecurity? security,
        bool insecureNetwork,
        bool isRehearsal)
    {
        CheckAddress(listen, security is not null, insecureNetwork);
        if (!isRehearsal)
        {
            Rehearsal.Once();
        }

        _prepare = prepare;
        _logger = logger;
        _session = new IncomingSession(prepare);
        _listener = new ConnectionListener(listen, versions, security, logger, MigrationSource.Patience);
    }

    /// <summary>Makes a listening socket for a destination that may be another process's, so that its port outlives that process.</summary>
    /// <param name="listen">An address and a port, 0 for any.</param>
    /// <param name="isSecured">Whether connections are to be under TLS.</param>
    /// <param name="insecureNetwork">Whether to listen beyond loopback without TLS.</param>
    /// <returns>The socket, which the caller disposes.</returns>
    /// <exception cref="ArgumentException">The address is beyond loopback, and there is neither TLS nor <paramref name="insecureNetwork"/>.</exception>
    /// <exception cref="SocketException">The port is in use.</exception>
    public static Socket Listen(IPEndPoint listen, bool isSecured, bool insecureNetwork)
    {
        CheckAddress(listen, isSecured, insecureNetwork);
        return ConnectionListener.Listen(listen);
    }

    /// <summary>Where it listens.</summary>
    public IPEndPoint EndPoint => _listener.EndPoint;

    /// <summary>How far the migration is, from any thread.</summary>
    public MigrationProgress Progress
    {
        get
        {
            IncomingSession session = _session;
            MigrationProgress progress = session.Counters.Snapshot();
            return progress with { PagesRemaining = session.Engine?.UnknownPages ?? progress.PagesTotal };
        }
    }

    /// <summary>The engine that answers the guest's faults, once memory is armed: its statistics outlive the migration.</summary>
    public FaultEngine? Engine => _session.Engine;

    /// <summary>How long a link that was lost after switchover is waited for; <see cref="Timeout.InfiniteTimeSpan"/> for as long as it takes.</summary>
    public TimeSpan ReconnectFor { get; init; } = Timeout.InfiniteTimeSpan;

    /// <summary>How long a connection may be silent after switchover until its link counts as lost: <see cref="MigrationOptions.LeastLinkTimeout"/> to <see cref="MigrationOptions.MostLinkTimeout"/>.</summary>
    /// <exception cref="ArgumentException">It is out of its range.</exception>
    public TimeSpan LinkTimeout
    {
        get;
        init => field = MigrationOptions.CheckedLinkTimeout(value);
    }
    = MigrationOptions.DefaultLinkTimeout;

    /// <summary>How long a source may say nothing, on any connection, before the guest could run here.</summary>
    internal TimeSpan LongestSilence { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>How long a source that does not know yet that its guest is whole here is waited for.</summary>
    internal TimeSpan WholePatience { get; init; } = s_wholePatience;

    /// <summary>Whether what happens is kept for a report, in <see cref="Recording"/>.</summary>
    public bool IsRecorded { get; init; }

    /// <summary>What happened since a source came; null before, and unless it is recorded. Complete when <see cref="Receive"/> or <see cref="TurnedAway"/> is told.</summary>
    public MigrationRecording? Recording => _session.Counters.Recording;

    /// <summary>The source's address; null before there is one.</summary>
    public EndPoint? Peer => _session.Peer;

    /// <summary>
    /// Is told the reason when a source that was listened to failed before switchover, while <see cref="Progress"/>, <see cref="Engine"/> and
    /// <see cref="Recording"/> are still about it.
    /// </summary>
    public Action<string>? TurnedAway { get; set; }

    /// <summary>Is told when the source went back to the switchover, and the guest was stopped here for good. <see cref="Receive"/> ends a while after that.</summary>
    public Action? Fenced { get; set; }

    /// <summary>
    /// Takes in one guest. Sources that fail before switchover are turned away and waited on again. A link that is lost later is waited for: the guest goes on with
    /// the pages it has, and stalls on the others. Called again when that was given up, it waits again.
    /// </summary>
    /// <param name="arrived">Called when the guest has been told to run, with the guest; from then on it belongs to who called this.</param>
    /// <exception cref="MigrationException">
    /// The link was lost after switchover and the source did not come back within <see cref="ReconnectFor"/>, or the engine failed: the guest stalls on what is missing.
    /// </exception>
    public void Receive(Action<IArrivingGuest> arrived)
    {
        lock (_receiving)
        {
            try
            {
                ReceiveOne(arrived);
            }
            finally
            {
                DropIfDisposed();
            }
        }
    }

    /// <summary>
    /// Takes the guest out, once its link to the source is lost: no vCPU of it runs any more when this returns, or ever will in this process. A source that comes
    /// back hears so.
    /// </summary>
    /// <returns>What is here of the guest, beside its memory. It can be asked for again.</returns>
    /// <exception cref="InvalidOperationException">No guest was let run here, its link is there, or all of it is here.</exception>
    public GuestHalf Export() => _session.Export();

    private static void CheckAddress(IPEndPoint listen, bool isSecured, bool insecureNetwork)
    {
        if (!isSecured && !insecureNetwork && !IPAddress.IsLoopback(listen.Address))
        {
            throw new ArgumentException($"{listen} is beyond loopback, and there a guest's memory travels under TLS only. Give a certificate, a key and an authority.", nameof(listen));
        }
    }

    private void TakeOver(IArrivingGuest held, Action<IArrivingGuest> arrived)
    {
        IncomingSession session = NewSession();
        session.TakeOver(held);
        _session = session;
        if (DestinationHandover.TakeOver(session.Stage) == DestinationAction.Run)
        {
            arrived(held);
        }
    }

    private void ReceiveOne(Action<IArrivingGuest> arrived)
    {
        if (Interlocked.Exchange(ref _takenOver, null) is { } held)
        {
            TakeOver(held, arrived);
        }

        IncomingConnections? resumed = null;
        if (_session.HoldsGuest ? !TryAwaitSource(_session.Lost!, out resumed) : !TryRenew())
        {
            return;
        }

        try
        {
            while (!TryTakeIn(resumed, arrived, out Exception? failure) && TryGoOn(failure, out resumed))
            {
            }
        }
        finally
        {
            _session.Dispose();
            _session.Counters.Recording?.End();
        }
    }

    /// <summary>Stops listening. A guest that has arrived is not touched; one that was not let run yet is dropped.</summary>
    public void Dispose()
    {
        _isDisposed = true;
        _listener.Dispose();
        if (_receiving.TryEnter())
        {
            // Otherwise whoever receives does it.
            DropIfDisposed();
            _receiving.Exit();
        }
    }

    private void DropIfDisposed()
    {
        if (_isDisposed && _session.Stage == DestinationStage.Loaded)
        {
            _session.Drop();
        }
    }

    /// <returns>Whether the guest is here with all its memory.</returns>
    private bool TryTakeIn(IncomingConnections? resumed, Action<IArrivingGuest> arrived, [NotNullWhen(false)] out Exception? failure)
    {
        IncomingSession session = _session;
        try
        {
            if (resumed is not null)
            {
                session.GoOn(resumed, arrived);
            }
            else
            {
                if (session.GuestId is null)
                {
                    session.Begin(_listener.AcceptControl());
                }

                session.Migrate(arrived);
            }

            failure = null;
            return true;
        }
        catch (Exception e) when (e is not ObjectDisposedException || session.HoldsGuest)
        {
            failure = e;
            return false;
        }
    }

    /// <summary>After a failure: waits for the source of a guest that is here, makes ready for another source if there is none.</summary>
    /// <param name="failure">What failed.</param>
    /// <param name="resumed">A link on which the source came back; null if another guest's migration begins.</param>
    /// <returns>False if there is nothing to go on with, and need not be.</returns>
    private bool TryGoOn(Exception failure, out IncomingConnections? resumed)
    {
        resumed = null;
        if (_session.Lose(failure) != DestinationAction.Discard)
        {
            if (_session.Stage == DestinationStage.Fenced)
            {
                Fenced?.Invoke();
            }

            return !_session.HasEngineFailed ? TryAwaitSource(failure, out resumed) : throw Stalled(failure);
        }

        TurnAway(MigrationSource.Describe(failure));
        return TryRenew();
    }

    /// <inheritdoc cref="TryGoOn"/>
    private bool TryAwaitSource(Exception failure, out IncomingConnections? resumed)
    {
        IncomingSession session = _session;
        bool isWhole = session.Stage == DestinationStage.Whole;
        TimeSpan longest = session.Stage is DestinationStage.Whole or DestinationStage.Fenced ? WholePatience : ReconnectFor;
        long began = Environment.TickCount64;
        session.Counters.Phase = PhaseWithout(session.Stage, MigrationPhase.Paused);
        session.Counters.WaitFor($"the source to come back: {MigrationSource.Describe(failure)}");
        if (_logger is not null)
        {
            MigrationLog.LinkLost(_logger, MigrationSource.Describe(failure));
        }

        while ((resumed = AcceptControl(session, longest, began)) is not null)
        {
            if (resumed.IsResumed || TryBeginAnew(resumed))
            {
                resumed = resumed.IsResumed ? resumed : null;
                return true;
            }
        }

        return isWhole ? false : throw Stalled(failure);
    }

    /// <summary>The phase without a link.</summary>
    private static MigrationPhase PhaseWithout(DestinationStage stage, MigrationPhase otherwise) => stage switch
    {
        DestinationStage.Whole => MigrationPhase.Completed,
        DestinationStage.Exported => MigrationPhase.Exported,
        DestinationStage.Fenced => MigrationPhase.RolledBack,
        _ => otherwise,
    };

    /// <returns>A link; null if none came in time, or nobody listens any more.</returns>
    private IncomingConnections? AcceptControl(IncomingSession held, TimeSpan longest, long began)
    {
        TimeSpan left = longest == Timeout.InfiniteTimeSpan ? longest : longest - TimeSpan.FromMilliseconds(Environment.TickCount64 - began);
        try
        {
            return left < TimeSpan.Zero && longest != Timeout.InfiniteTimeSpan ? null : _listener.AcceptControl(held.Id, takesOthers: held.Stage == DestinationStage.Loaded, left);
        }
        catch (ObjectDisposedException)
        {
            return null;
        }
    }

    /// <summary>A source begins a migration while a guest is here whose source is gone: it is let in if that shows that it never let go of this guest.</summary>
    private bool TryBeginAnew(IncomingConnections link)
    {
        IncomingSession held = _session;
        var newer = NewSession();
        try
        {
            newer.Begin(link);
            if (newer.GuestId == held.GuestId && held.MeetAnew() == DestinationAction.Discard)
            {
                TurnAway("Its source begins anew.");
                held.Dispose();
                _session = newer;
                return true;
            }

            throw new ProtocolException("This destination holds a guest whose source may come back.");
        }
        catch (Exception failure)
        {
            link.Control.TryPart(MigrationSource.Describe(failure));
            link.Dispose();
            return false;
        }
    }

    /// <summary>Makes ready for a source.</summary>
    private bool TryRenew()
    {
        _session.Dispose();
        _session = NewSession();
        return true;
    }

    private IncomingSession NewSession()
    {
        var session = new IncomingSession(_prepare) { LongestSilence = LongestSilence, LinkTimeout = LinkTimeout };
        session.Counters.Recording = IsRecorded ? new MigrationRecording(() => Progress) : null;
        return session;
    }

    private void TurnAway(string reason)
    {
        IncomingSession session = _session;
        bool isHeard = session.Counters.Phase != MigrationPhase.Waiting;
        session.Counters.Phase = MigrationPhase.Failed;
        session.Counters.Recording?.End();
        if (isHeard)
        {
            TurnedAway?.Invoke(reason);
        }

        if (_logger is not null)
        {
            MigrationLog.TurnedAway(_logger, reason);
        }
    }

    private MigrationException Stalled(Exception failure)
    {
        _session.Counters.Phase = PhaseWithout(_session.Stage, MigrationPhase.Stalled);
        return new MigrationException(
            _session.Stage == DestinationStage.Exported ? "The guest was taken out of this process as a file."
                : _session.Stage == DestinationStage.Fenced ? "The source went back to the switchover and runs the guest; it was dropped here."
                : _session.Stage == DestinationStage.Loaded
                ? $"The link to the source was lost in the switchover: {MigrationSource.Describe(failure)} The guest was not let run here, and may be the source's."
                : $"The link to the source was lost after switchover: {MigrationSource.Describe(failure)} The guest goes on with the pages it has and stalls on the {Engine?.UnknownPages ?? 0} that are missing.",
            switchedOver: _session.Stage != DestinationStage.Loaded,
            failure);
    }
}
