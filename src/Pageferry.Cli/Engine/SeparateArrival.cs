using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text.Json;
using Pageferry.Linux;
using Pageferry.Migration;

namespace Pageferry.Cli;

/// <summary>
/// A place where a guest can arrive in this process, with its engine in a process of its own. This process keeps what the engine works with, so that another one
/// goes on where it left off: however it ends, or when it is replaced.
/// </summary>
internal sealed class SeparateArrival : IArrival
{
    private static readonly TimeSpan s_answerPatience = TimeSpan.FromMilliseconds(500);
    private static readonly TimeSpan s_glance = TimeSpan.FromMilliseconds(20);
    private static readonly TimeSpan s_helloPatience = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan s_lookInterval = TimeSpan.FromSeconds(1);

    /// <summary>An engine that lived for so long did not die of what it found.</summary>
    private static readonly TimeSpan s_longLife = TimeSpan.FromSeconds(5);

    private static readonly TimeSpan s_firstBackOff = TimeSpan.FromMilliseconds(100);
    private static readonly TimeSpan s_longestBackOff = TimeSpan.FromSeconds(5);

    private readonly Socket _listening;
    private readonly ArrivalOptions _options;
    private readonly EngineSettings _settings;
    private readonly VmOutput _output;

    /// <summary>Where a supervisor's engines come to; null if this process starts them.</summary>
    private readonly EngineSocket? _engines;

    /// <summary>How long an engine may be silent. However long a link may: what it is asked meanwhile waits in a socket.</summary>
    private readonly TimeSpan _longestSilence;

    /// <summary>Guards what follows; pulsed when it changes. Never held while the engine is asked something.</summary>
    private readonly object _gate = new();
    private TaskCompletionSource? _received;
    private TaskCompletionSource? _replaced;
    private Action<HostedGuest>? _arrived;
    private Action<string>? _turnedAway;
    private Action? _fenced;
    private Thread? _thread;
    private EngineProcess? _engine;
    private SharedGuest? _guest;
    private MigrationStatus? _last;
    private RecordedMigration? _recorded;
    private string? _program;
    private string? _programBefore;
    private bool _isReplacement;
    private string? _error;
    private int _restarts;
    private int _quickEnds;
    private bool _hasFailed;
    private bool _hasExecuted;
    private bool _isOver;
    private long _goneSince;
    private long _longestAbsence;

    private SeparateArrival(Socket listening, EngineSocket? engines, ArrivalOptions options, EngineSettings settings, VmOutput output)
    {
        _listening = listening;
        _engines = engines;
        _options = options;
        _settings = settings;
        _output = output;
        _longestSilence = options.LinkTimeout < s_helloPatience ? options.LinkTimeout : s_helloPatience;
        Endpoint = (IPEndPoint)listening.LocalEndPoint!;
    }

    /// <inheritdoc/>
    public IPEndPoint Endpoint { get; }

    /// <inheritdoc/>
    public bool IsListening => !Volatile.Read(ref _isOver);

    /// <inheritdoc/>
    public MigrationStatus? Status => StatusNow is { } status ? status with { Report = _options.Report?.WrittenTo, ReportError = _options.Report?.Error } : null;

    private MigrationStatus? StatusNow
    {
        get
        {
            EngineProcess? engine;
            lock (_gate)
            {
                engine = _engine;
                if (_isOver || engine is not { IsReady: true })
                {
                    return _isOver ? _last : WithoutEngine(_engines is null ? "the engine to start" : $"an engine to come to {_engines.Path}");
                }
            }

            try
            {
                EngineMessage answer = engine.Orders.Ask(new EngineMessage { What = EngineMessage.Ask }, s_answerPatience, out _);
                lock (_gate)
                {
                    // One that is over has said how it ended.
                    _last = _isOver ? _last : answer.Status ?? WithoutEngine("the engine to take over");
                    return _last;
                }
            }
            catch (Exception e) when (e is IOException or TimeoutException or ObjectDisposedException or CommandException)
            {
                lock (_gate)
                {
                    return _isOver ? _last : WithoutEngine("the engine, which does not answer");
                }
            }
        }
    }

    /// <inheritdoc/>
    public EngineStatus Engine
    {
        get
        {
            lock (_gate)
            {
                return new EngineStatus { Pid = _engine?.Pid, Version = _engine is { IsReady: true } engine ? engine.Build : null, Restarts = _restarts, LongestAbsenceMs = _longestAbsence, Error = _error };
            }
        }
    }

    /// <summary>Listens.</summary>
    /// <param name="listen">Where.</param>
    /// <param name="engineSocket">Where a supervisor's engines come to; null to start them here.</param>
    /// <param name="options">How to take a guest in.</param>
    /// <param name="security">Who this side is and whom it trusts.</param>
    /// <param name="output">Where to say what happens to the engine, and what it logs.</param>
    /// <returns>The place.</returns>
    /// <exception cref="CommandException">It can't listen there.</exception>
    internal static SeparateArrival Listen(NetworkEndpoint listen, string? engineSocket, ArrivalOptions options, SecuritySettings security, VmOutput output)
    {
        var settings = new EngineSettings(
            security,
            options.ReconnectFor == Timeout.InfiniteTimeSpan ? null : options.ReconnectFor.TotalMilliseconds,
            options.LinkTimeout.TotalMilliseconds,
            options.StallWarning.TotalMilliseconds,
            IsReported: options.Report is not null);
        Socket listening = Arrival.OnPort(listen, options, local => MigrationDestination.Listen(local, options.Security is not null, options.InsecureNetwork));
        try
        {
            return new SeparateArrival(listening, engineSocket is null ? null : EngineSocket.Listen(engineSocket), options, settings, output);
        }
        catch
        {
            listening.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public Task ReceiveAsync(Action<HostedGuest> arrived, Action<string> turnedAway, Action fenced)
    {
        EngineProcess? waiting;
        lock (_gate)
        {
            _arrived = arrived;
            _turnedAway = turnedAway;
            _fenced = fenced;
            _received = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            waiting = _hasFailed ? _engine : null;
            _hasFailed = false;
            if (_thread is null)
            {
                _thread = new Thread(Run) { IsBackground = true, Name = "engine host" };
                _thread.Start();
            }

            Monitor.PulseAll(_gate);
        }

        try
        {
            _ = waiting?.Orders.Ask(new EngineMessage { What = EngineMessage.Resume }, s_answerPatience, out _);
        }
        catch (Exception e) when (e is IOException or TimeoutException or ObjectDisposedException)
        {
            // The next one waits for the source by itself.
        }

        return _received.Task;
    }

    /// <inheritdoc/>
    public GuestHalf Export()
    {
        SharedGuest guest;
        EngineProcess? engine;
        lock (_gate)
        {
            guest = _guest ?? throw new InvalidOperationException("There is no guest here.");
            engine = _engine;
        }

        try
        {
            _ = engine?.Orders.Ask(new EngineMessage { What = EngineMessage.Export }, _options.LinkTimeout, out _);
        }
        catch (CommandException refusal)
        {
            throw new InvalidOperationException(refusal.Message, refusal);
        }
        catch (Exception e) when (e is IOException or TimeoutException or ObjectDisposedException)
        {
            // What it did before it went is in the record.
        }

        return guest.Record.IsExported ? guest.TakeHalf() : throw new InvalidOperationException("There is no engine just now that could tell its source. Ask again when there is another one.");
    }

    /// <inheritdoc/>
    public string? WriteReport(VmStatus status, Guid guest, string? error)
    {
        RecordedMigration? recorded;
        lock (_gate)
        {
            recorded = _recorded;
            _recorded = null;
        }

        return recorded is null ? null : _options.Report?.Write(() => MigrationReport.Of(status, guest, recorded, error));
    }

    /// <inheritdoc/>
    public async Task ReplaceEngineAsync(string? program)
    {
        TaskCompletionSource replaced;
        lock (_gate)
        {
            if (_isOver)
            {
                throw NothingToReplace();
            }

            if (_hasFailed)
            {
                throw new CommandException("The source was given up, so no engine works on this guest. Have it waited for first: pageferry vm receive --resume.");
            }

            if (_replaced is not null)
            {
                throw new CommandException("The engine is being replaced already.");
            }

            if (_engines is not null && program is not null)
            {
                throw new CommandException($"Not this process but a supervisor starts the engines that come to {_engines.Path}. Change the program there, and leave --binary out to have the engine replaced that works now.");
            }

            _programBefore = _program;
            _program = program ?? _program;
            _replaced = replaced = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            _engine?.Kill();
            Monitor.PulseAll(_gate);
        }

        try
        {
            await replaced.Task;
        }
        catch (CommandException e)
        {
            throw new CommandException($"Could not replace the engine: {e.Message} What was the engine before is started again.");
        }
    }

    /// <summary>Listens no longer, and ends the engine. A guest that has arrived is not touched.</summary>
    public void Dispose()
    {
        lock (_gate)
        {
            _isOver = true;
            _engine?.Kill();
            _ = _replaced?.TrySetException(NothingToReplace());
            Monitor.PulseAll(_gate);
        }

        _thread?.Join();
        _listening.Dispose();
        _engines?.Dispose();
    }

    private void Run()
    {
        if (_engines is not null)
        {
            _output.Write("log", $"Waits for an engine at {_engines.Path}: pageferry engine --guest {_engines.Path}");
        }

        while (AwaitTurn())
        {
            TimeSpan age = TimeSpan.Zero;
            string error;
            try
            {
                error = HostEngine(out age);
            }
            catch (Exception e) when (e is not OutOfMemoryException)
            {
                error = e.Message;
            }

            TakeEnd(error, age);
        }

        // Who comes now waits for a guest to come.
        _engines?.Dispose();
    }

    /// <summary>Waits until an engine is to be started.</summary>
    /// <returns>False if none is any more.</returns>
    private bool AwaitTurn()
    {
        lock (_gate)
        {
            long until = Environment.TickCount64 + (long)BackOff().TotalMilliseconds;
            while (!_isOver)
            {
                long left = until - Environment.TickCount64;
                if (!_hasFailed && (left <= 0 || _replaced is not null))
                {
                    return true;
                }

                _ = _hasFailed ? Monitor.Wait(_gate) : Monitor.Wait(_gate, (int)left);
            }

            return false;
        }
    }

    private TimeSpan BackOff() => _quickEnds <= 1
        ? TimeSpan.Zero
        : TimeSpan.FromTicks(Math.Min(s_longestBackOff.Ticks, s_firstBackOff.Ticks << Math.Min(_quickEnds - 2, 10)));

    /// <summary>Starts an engine and answers it until it is gone.</summary>
    /// <param name="age">How long it lived.</param>
    /// <returns>How it ended, for a reader.</returns>
    private string HostEngine(out TimeSpan age)
    {
        age = TimeSpan.Zero;
        lock (_gate)
        {
            _isReplacement = _replaced is not null;
        }

        using EngineProcess? engine = _engines is null
            ? StartedEngine.Start(_program)
            : _engines.Await(() => Volatile.Read(ref _isOver), reason => _output.Write("log", reason));
        if (engine is null)
        {
            return "No engine is waited for any longer.";
        }

        lock (_gate)
        {
            _engine = engine;
            if (_isOver || (_replaced is not null && !_isReplacement))
            {
                engine.Kill();
            }
        }

        using var watch = new Timer(_ => EndIfSilent(engine), null, s_lookInterval, s_lookInterval);
        try
        {
            engine.Calls.Serve((call, received) => Answer(engine, call, received));
        }
        catch (Exception e) when (e is IOException or InvalidDataException)
        {
            _output.Write("log", $"The engine (pid {engine.Pid}) can't be answered: {e.Message}");
        }

        string how = engine.End();
        lock (_gate)
        {
            _engine = null;
            _goneSince = engine.IsReady || _goneSince == 0 ? Environment.TickCount64 : _goneSince;
        }

        age = engine.Age;
        return string.Create(CultureInfo.InvariantCulture, $"The engine (pid {engine.Pid}, {engine.Build ?? "which had not said its version"}) {how} after {age.TotalSeconds:F1} s{(engine.Refusal is null ? "." : $": {engine.Refusal}")}");
    }

    /// <summary>Ends an engine that does not come up, is stopped, or hangs: it must not go on when another one has taken its place.</summary>
    private void EndIfSilent(EngineProcess engine)
    {
        TimeSpan longest = engine.IsReady ? _longestSilence : s_helloPatience;
        if (engine.Silence(s_answerPatience) is { } silence && silence >= longest)
        {
            _output.Write("log", string.Create(CultureInfo.InvariantCulture, $"The engine (pid {engine.Pid}) has not answered for {silence.TotalSeconds:F1} s and is ended."));
            engine.Kill();
        }
    }

    /// <summary>An engine has ended, or could not be started.</summary>
    private void TakeEnd(string error, TimeSpan age)
    {
        SharedGuest? dropped = null;
        TaskCompletionSource? failed = null;
        lock (_gate)
        {
            if (_isOver)
            {
                return;
            }

            _restarts++;
            _error = error;
            _quickEnds = age < s_longLife ? _quickEnds + 1 : 1;
            if (_guest is { Record.IsReleased: true })
            {
                // It died before it could say so.
                Finish(_last);
                return;
            }

            if (_guest is { Record.HoldsGuest: false })
            {
                dropped = _guest;
                _guest = null;
                _last = null;
            }

            if (_replaced is not null && _isReplacement)
            {
                failed = _replaced;
                _replaced = null;
                _program = _programBefore;
            }
        }

        _ = failed?.TrySetException(new CommandException(error));
        string next = _engines is null ? "Another one is started." : $"Another one is waited for at {_engines.Path}.";
        _output.Write("log", dropped is not null ? $"{error} The guest goes on at its source." : $"{error} {next}");
        if (dropped is not null)
        {
            dropped.Dispose();
            _turnedAway?.Invoke(error);
        }
    }

    private EngineAnswer Answer(EngineProcess engine, EngineMessage call, FileDescriptor[] received)
    {
        try
        {
            return Do(engine, call, received);
        }
        finally
        {
            Array.ForEach(received, descriptor => descriptor.Dispose());
        }
    }

    private EngineAnswer Do(EngineProcess engine, EngineMessage call, FileDescriptor[] received)
    {
        switch (call.What)
        {
            case EngineMessage.Hello:
                return Welcome(engine, call);
            case EngineMessage.Ready:
                TakeReady(engine);
                return EngineAnswer.Done;
            case EngineMessage.Refused:
                engine.Refusal = call.Text;
                return EngineAnswer.Done;
            case EngineMessage.Prepare:
                return Prepare(call, received);
            case EngineMessage.Load:
                Guest(call).Load(Along(call, received), call.Count ?? 0);
                return EngineAnswer.Done;
            case EngineMessage.Start:
                return Start(call);
            case EngineMessage.Stop:
                Stop(Guest(call));
                return EngineAnswer.Done;
            case EngineMessage.Unmap:
                Unmap(engine, Guest(call), call);
                return EngineAnswer.Done;
            case EngineMessage.Unregister:
                Guest(call).Unregister();
                return EngineAnswer.Done;
            case EngineMessage.Collapse:
                Guest(call).Hosted.Machine.Memory.BeginCollapse();
                return EngineAnswer.Done;
            case EngineMessage.Drop:
                Drop();
                return EngineAnswer.Done;
            case EngineMessage.TurnedAway:
                Keep(call, received);
                _turnedAway?.Invoke(call.Text ?? string.Empty);
                return EngineAnswer.Done;
            case EngineMessage.Log:
                _output.Write("log", call.Text ?? string.Empty);
                return EngineAnswer.Done;
            case EngineMessage.Arrived:
                Keep(call, received);
                lock (_gate)
                {
                    Finish(call.Status);
                }

                return EngineAnswer.Done;
            case EngineMessage.Failed:
                Keep(call, received);
                Fail(call);
                return EngineAnswer.Done;
            default:
                throw new InvalidDataException($"'{call.What}' is no call that this build knows.");
        }
    }

    private EngineAnswer Welcome(EngineProcess engine, EngineMessage call)
    {
        if (call.Version != EngineMessage.CurrentVersion)
        {
            throw new CommandException($"The engine speaks version {call.Version} with the process of its guest, which speaks version {EngineMessage.CurrentVersion}.");
        }

        SharedGuest? guest;
        lock (_gate)
        {
            engine.Build = call.Build ?? "unknown";
            guest = _guest;
        }

        using var listening = new FileDescriptor((int)_listening.Handle, ownsHandle: false);
        FileDescriptor[] along = [engine.TakeItsOrders(), listening.Duplicate(), .. guest?.Duplicate() ?? []];
        return new EngineAnswer(new EngineMessage { What = call.What, Settings = _settings, View = guest?.View }, along);
    }

    /// <summary>Unmaps pages, which takes the engine's reading of it: one that dies meanwhile must not be waited for.</summary>
    private static void Unmap(EngineProcess engine, SharedGuest guest, EngineMessage call)
    {
        Task unmapping = Task.Factory.StartNew(
            () => guest.Hosted.Machine.Memory.Unmap(call.Page ?? 0, call.Count ?? 0), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        while (Task.WaitAny([unmapping], s_glance) < 0)
        {
            if (engine.HasEnded)
            {
                // What waits in the kernel ends with the guest's memory: before the switchover, the engine has died with all it had.
                throw new EndOfStreamException("The engine ended before it had read of the unmapping.");
            }
        }

        unmapping.GetAwaiter().GetResult();
    }

    private void TakeReady(EngineProcess engine)
    {
        TaskCompletionSource? replaced = null;
        lock (_gate)
        {
            engine.IsReady = true;
            if (_guest is { IsStarted: true })
            {
                _longestAbsence = Math.Max(_longestAbsence, Environment.TickCount64 - _goneSince);
            }

            if (_isReplacement)
            {
                replaced = _replaced;
                _replaced = null;
            }
        }

        _ = replaced?.TrySetResult();
    }

    private EngineAnswer Prepare(EngineMessage call, FileDescriptor[] received)
    {
        if (_guest is { Record.HoldsGuest: true } or { IsStarted: true })
        {
            throw new InvalidDataException("A guest is here already.");
        }

        // The engine may have failed in the midst of it the last time.
        Drop();
        var guest = SharedGuest.Prepare(MemoryFile.FromDescriptor(Along(call, received).Duplicate(), "arrival"), _options);
        lock (_gate)
        {
            _guest = guest;
            _hasExecuted = false;
        }

        return new EngineAnswer(new EngineMessage { What = call.What, View = guest.View }, guest.Duplicate());
    }

    private void Stop(SharedGuest guest)
    {
        // Whoever takes it out stops it when the engine has answered.
        if (!guest.Record.IsExported)
        {
            guest.Hosted.Pause.Hold();
            _fenced?.Invoke();
        }
    }

    /// <summary>Keeps what an engine has to report. What can't be read is no reason for a guest not to have arrived.</summary>
    private void Keep(EngineMessage call, FileDescriptor[] received)
    {
        RecordedMigration? recorded = null;
        try
        {
            recorded = received.Length == 0
                ? null
                : JsonSerializer.Deserialize(BytesFile.Read(Along(call, received), call.Count ?? 0, RecordedMigration.MostBytes, "the report"), CliJson.Default.RecordedMigration);
        }
        catch (Exception e) when (e is InvalidDataException or JsonException or IOException)
        {
            _output.Write("log", $"What the engine has to report can't be read: {e.Message}");
        }

        lock (_gate)
        {
            _recorded = recorded;
        }
    }

    private EngineAnswer Start(EngineMessage call)
    {
        SharedGuest guest = Guest(call);
        if (guest.TryStart(call.IsPaused ?? false, TellExecuted))
        {
            _arrived!(guest.Hosted);
        }

        return new EngineAnswer(new EngineMessage { What = call.What, HasExecuted = Volatile.Read(ref _hasExecuted) });
    }

    /// <summary>The guest has executed: the engine tells the source. One that is not there yet is told when it has the guest started.</summary>
    private void TellExecuted()
    {
        EngineProcess? engine;
        lock (_gate)
        {
            _hasExecuted = true;
            engine = _engine;
        }

        // Not on the vCPU's thread.
        _ = Task.Run(() =>
        {
            try
            {
                _ = engine?.Orders.Ask(new EngineMessage { What = EngineMessage.Executed }, s_answerPatience, out _);
            }
            catch (Exception e) when (e is IOException or TimeoutException or ObjectDisposedException or CommandException)
            {
                // Gone: the next one asks.
            }
        });
    }

    private void Drop()
    {
        SharedGuest? dropped;
        lock (_gate)
        {
            dropped = _guest;
            if (dropped?.IsStarted == true)
            {
                throw new InvalidDataException("The guest runs here and can't be dropped.");
            }

            _guest = null;
            _last = null;
        }

        dropped?.Dispose();
    }

    private void Fail(EngineMessage call)
    {
        TaskCompletionSource received;
        lock (_gate)
        {
            _hasFailed = true;
            _last = call.Status;
            received = _received!;
        }

        _ = received.TrySetException(new MigrationException(call.Text ?? "The source was given up.", switchedOver: true));
    }

    /// <summary>The guest has arrived with all its memory.</summary>
    private void Finish(MigrationStatus? status)
    {
        _last = status;
        _isOver = true;
        _ = _replaced?.TrySetException(NothingToReplace());
        _guest?.EndSharing();
        _listening.Dispose();
        _ = _received!.TrySetResult();
    }

    private MigrationStatus? WithoutEngine(string what) => _last is null || _guest is null
        ? null
        : _last with { Phase = "postcopy_paused", WaitsFor = what, WaitedMs = _engine is null ? Environment.TickCount64 - _goneSince : 0, Stall = null };

    private SharedGuest Guest(EngineMessage call) => _guest ?? throw new InvalidDataException($"There is no guest here for '{call.What}'.");

    private static CommandException NothingToReplace() =>
        new("There is no engine to replace: the guest has all its memory, and no access of it is a userfault any more.");

    private static FileDescriptor Along(EngineMessage call, FileDescriptor[] received) =>
        received is [var file] ? file : throw new InvalidDataException($"'{call.What}' came with {received.Length} descriptors where it has one.");
}
