using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>
/// The source after the switchover: sends everything that the destination does not have, over one link after another until it has all. The guest is the
/// destination's, whatever happens.
/// </summary>
internal sealed class PostCopy
{
    /// <summary>How long one attempt to connect may take: the kernel sends what is lost of it again after 1 s, which a new attempt does too.</summary>
    private static readonly TimeSpan s_connectPatience = TimeSpan.FromSeconds(1);

    /// <summary>What a person can do about a destination that is lost.</summary>
    internal const string Remedy =
        "If it is elsewhere now, 'pageferry vm migrate --resume --to HOST:PORT' tells where; if it is gone, 'pageferry recover rollback' has the guest go back to the switchover.";

    private static readonly TimeSpan s_firstDelay = TimeSpan.FromMilliseconds(50);
    private static readonly TimeSpan s_longestDelay = TimeSpan.FromSeconds(1);

    private readonly MigrationOptions _options;
    private readonly MigrationCounters _counters;
    private readonly Func<SourceEvent, SourceAction> _step;
    private readonly object _gate = new();
    private EndPoint _destination;
    private bool _isAsked;
    private bool _isGivenUp;

    /// <param name="options">How to migrate.</param>
    /// <param name="counters">Counts what is sent.</param>
    /// <param name="destination">Where the destination is.</param>
    /// <param name="step">Tells what follows from an event.</param>
    internal PostCopy(MigrationOptions options, MigrationCounters counters, EndPoint destination, Func<SourceEvent, SourceAction> step)
    {
        _options = options;
        _counters = counters;
        _destination = destination;
        _step = step;
    }

    /// <summary>The session that the destination knows the guest by.</summary>
    internal required SessionId Session { get; init; }

    /// <summary>The pages that the destination lacks.</summary>
    internal required OutgoingPages Pages { get; init; }

    /// <summary>The switchover's generation.</summary>
    internal required uint Generation { get; init; }

    /// <summary>The machine state at the switchover.</summary>
    internal required ReadOnlyMemory<byte> State { get; init; }

    /// <summary>Whether the guest was to stand still after it.</summary>
    internal required bool IsPaused { get; init; }

    /// <summary>When the guest had stopped, by <see cref="Stopwatch"/>; null where another process stopped it.</summary>
    internal required long? Stopped { get; init; }

    /// <summary>Where the destination is.</summary>
    internal EndPoint Destination
    {
        get
        {
            lock (_gate)
            {
                return _destination;
            }
        }
    }

    private bool IsGivenUp
    {
        get
        {
            lock (_gate)
            {
                return _isGivenUp;
            }
        }
    }

    /// <summary>Sends, over the link of the switchover.</summary>
    internal void Follow(OutgoingConnections link, BackgroundSender[] senders, PageThreads threads) => Follow(link, senders, threads, isRunning: false);

    /// <summary>Goes on after the link was lost, and lost again, until the destination has every page.</summary>
    /// <param name="lost">Why it was lost.</param>
    /// <exception cref="Exception">It was not found again in the time given: why not.</exception>
    internal void GoOn(Exception lost)
    {
        while (_step(SourceEvent.Failed) == SourceAction.Reconnect)
        {
            using OutgoingConnections link = Reconnect(lost);
            try
            {
                GoOn(link);
                return;
            }
            catch (Exception failure) when (failure is not (ValidationException or GuestGoneException or MigrationException))
            {
                lost = failure;
            }
        }
    }

    /// <summary>Has the destination drop the guest. When this returns, it has, and the guest is this side's.</summary>
    /// <exception cref="GuestGoneException">The guest was taken out of the destination as a file.</exception>
    /// <exception cref="Exception">It is not known whether it has.</exception>
    internal void Fence() => _ = MeetGone(AskToDrop(isServing: true));

    /// <summary>Goes on having the destination drop the guest, should it ever come back: a person vouches that it does not run there.</summary>
    internal void BeginFencing() => new Thread(KeepFencing) { IsBackground = true, Name = "fencing" }.Start();

    /// <summary>Tries again now, and elsewhere if the destination has moved.</summary>
    internal void ReconnectTo(EndPoint destination)
    {
        lock (_gate)
        {
            _destination = destination;
            _isAsked = true;
            _isGivenUp = false;
            Monitor.PulseAll(_gate);
        }
    }

    /// <summary>Ends the attempts to find the destination, also those after its next loss.</summary>
    internal void GiveUp()
    {
        lock (_gate)
        {
            _isGivenUp = true;
            Monitor.PulseAll(_gate);
        }
    }

    /// <summary>Takes <see cref="GiveUp"/> back: the destination is there, and is looked for when it is lost.</summary>
    internal void KeepLooking()
    {
        lock (_gate)
        {
            _isGivenUp = false;
        }
    }

    /// <summary>Has the destination drop the guest, unless it has already.</summary>
    /// <param name="isServing">Whether pages that it asks for are sent meanwhile: a vCPU that waits for one may come to a stop only when it is there.</param>
    /// <returns>How it found the guest then.</returns>
    private FoundGuest AskToDrop(bool isServing)
    {
        using var link = new OutgoingConnections(_options, _counters);
        link.Open(Destination, Session, s_connectPatience, _options.LinkTimeout);
        PageBitmap missing = isServing ? Pages.Pending : new(Pages.Memory.PageCount);
        missing.Clear();
        FoundGuest found = MissingPages.Receive(link.Control, missing);
        if (found is FoundGuest.Exported or FoundGuest.Fenced)
        {
            return found;
        }

        var threads = new PageThreads(link.All);
        if (isServing)
        {
            var server = new DemandServer(link.Demand, Pages, _counters);
            server.SwitchOver(Generation);
            threads.Start("demand pages", () =>
            {
                try
                {
                    server.Serve();
                }
                catch (Exception failure) when (failure is EndOfStreamException or SocketException or ObjectDisposedException)
                {
                    // A destination that is done ends this connection; its answer comes on the other one.
                }
            });
        }

        threads.Run(() =>
        {
            // However often it says that it is there.
            link.Control.Deadline = MigrationSource.Patience;
            link.Send(MessageType.Fence, []);
            found = MissingPages.ReceiveFound(link.Control);
        });
        return found;
    }

    private void KeepFencing()
    {
        while (true)
        {
            Thread.Sleep(s_longestDelay);
            try
            {
                // The guest runs here: its memory is no longer what it was.
                if (AskToDrop(isServing: false) is FoundGuest.Exported or FoundGuest.Fenced)
                {
                    return;
                }
            }
            catch (Exception)
            {
                // It is not there, or not there any more.
            }
        }
    }

    /// <summary>The destination can't run the guest any more.</summary>
    /// <exception cref="GuestGoneException">It was taken out there as a file.</exception>
    private SourceAction MeetGone(FoundGuest found)
    {
        SourceAction action = found switch
        {
            FoundGuest.Exported => _step(SourceEvent.FoundExported),
            FoundGuest.Fenced => _step(SourceEvent.FoundFenced),
            _ => throw new ProtocolException($"The destination found the guest {found} where it was to drop it."),
        };
        return found == FoundGuest.Fenced ? action : throw new GuestGoneException(found);
    }

    private OutgoingConnections Reconnect(Exception lost)
    {
        WaitForDestination(lost);
        _counters.Phase = MigrationPhase.Paused;
        long began = Stopwatch.GetTimestamp();
        TimeSpan delay = TimeSpan.Zero;
        while (MayWait(delay, began))
        {
            var link = new OutgoingConnections(_options, _counters);
            try
            {
                link.Open(Destination, Session, s_connectPatience, _options.LinkTimeout);
                if (!IsGivenUp)
                {
                    return link;
                }

                link.Dispose();
                break;
            }
            catch (Exception failure)
            {
                link.Dispose();
                lost = failure;
                WaitForDestination(failure);
            }

            delay = delay == TimeSpan.Zero ? s_firstDelay : TimeSpan.FromTicks(Math.Min(2 * delay.Ticks, s_longestDelay.Ticks));
        }

        throw new TimeoutException($"It was not found again: {DescribeLost(lost)}", lost);
    }

    private void WaitForDestination(Exception lost) => _counters.WaitFor($"the destination: {DescribeLost(lost)} {Remedy}");

    /// <summary>What a person is told of a failure where the guest is the destination's: another one would not know it.</summary>
    internal static string DescribeLost(Exception failure) => failure is SocketException { SocketErrorCode: SocketError.ConnectionRefused }
        ? "Nobody listens there any more (ECONNREFUSED)."
        : MigrationSource.Describe(failure);

    /// <returns>Whether to try again, when this returns.</returns>
    private bool MayWait(TimeSpan delay, long began)
    {
        lock (_gate)
        {
            if (!_isAsked && !_isGivenUp && delay > TimeSpan.Zero)
            {
                _ = Monitor.Wait(_gate, delay);
            }

            bool isInTime = _isAsked || _options.ReconnectFor == Timeout.InfiniteTimeSpan || Stopwatch.GetElapsedTime(began) < _options.ReconnectFor;
            _isAsked = false;
            return isInTime && !_isGivenUp;
        }
    }

    private void GoOn(OutgoingConnections link)
    {
        // What the destination says that it lacks is what counts: pages that were sent may have been lost on their way.
        Pages.Pending.Clear();
        FoundGuest found = MissingPages.Receive(link.Control, Pages.Pending);
        if (found is FoundGuest.Exported or FoundGuest.Fenced)
        {
            _ = MeetGone(found);
            throw new GuestGoneException(found);
        }

        _counters.Remaining = (long)Pages.Pending.CountPages();
        _counters.Phase = MigrationPhase.PostCopy;
        _counters.AddReconnect();
        link.ExpectLife();
        var server = new DemandServer(link.Demand, Pages, _counters);
        server.SwitchOver(Generation);
        var threads = new PageThreads(link.All);
        BackgroundSender[] senders = BackgroundSender.Of(link, Pages, _options.Compression, _counters);
        try
        {
            threads.Start("demand pages", server.Serve);
            threads.Run(() =>
            {
                if (_step(found == FoundGuest.Loaded ? SourceEvent.FoundLoaded : SourceEvent.FoundStarted) == SourceAction.SendStart)
                {
                    link.Send(MessageType.Start, []);
                }

                Follow(link, senders, threads, isRunning: found == FoundGuest.Running);
            });
        }
        finally
        {
            Array.ForEach(senders, sender => sender.Dispose());
        }
    }

    private void Follow(OutgoingConnections link, BackgroundSender[] senders, PageThreads threads, bool isRunning)
    {
        if (!isRunning)
        {
            _ = link.Control.Receive(MessageType.Running, 0);
        }

        if (_counters.Downtime == TimeSpan.Zero && Stopped is { } stopped)
        {
            _counters.Downtime = Stopwatch.GetElapsedTime(stopped);
        }

        // Not earlier: it would compete with the first pages the guest asks for.
        _counters.BeginBackground();
        foreach (BackgroundSender sender in senders)
        {
            sender.Limit = link.PostcopyLimit;
            threads.Start("background pages", () => sender.Drain(Generation));
        }

        _ = link.Control.Receive(MessageType.Complete, 0);
        if (_options.Validate)
        {
            Validate(link, threads);
        }

        threads.Finish();
        if (_step(SourceEvent.Completed) == SourceAction.Release)
        {
            link.Send(MessageType.Released, []);
        }
    }

    private void Validate(OutgoingConnections link, PageThreads threads)
    {
        try
        {
            new PageValidation(Pages.Memory).Compare(link.Control);
        }
        catch (ValidationException failure)
        {
            // In this order: it is what counts, not that the destination ends the link when it hears it.
            threads.Fail(failure);
            link.Control.TryPart(failure.Message);
            throw;
        }
    }
}
