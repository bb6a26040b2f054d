using System.Diagnostics;
using System.Globalization;
using System.Net;

namespace Pageferry.Cli;

/// <summary>One run: a guest that checks its memory moves from one process to another while the plan is carried out.</summary>
/// <param name="plan">What is done.</param>
/// <param name="options">What the user asked for.</param>
/// <param name="directory">Where control sockets can be made.</param>
internal sealed class TortureRun(TorturePlan plan, TortureOptions options, string directory) : IDisposable
{
    /// <summary>How long nothing may change: longer than any deadline of a migration.</summary>
    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(2);

    /// <summary>How long a guest that stayed at the source may be refused elsewhere: what holds its place there ends by then.</summary>
    private static readonly TimeSpan s_nextPatience = TimeSpan.FromSeconds(90);

    /// <summary>Short, so that silence is found to be a lost link in most runs that have some.</summary>
    private static readonly TimeSpan s_linkTimeout = TimeSpan.FromSeconds(1);

    private static readonly TimeSpan s_pollInterval = TimeSpan.FromMilliseconds(10);
    private static readonly TimeSpan s_retryInterval = TimeSpan.FromMilliseconds(200);

    /// <summary>Held while both sides are looked at, and while the destination is replaced.</summary>
    private readonly SemaphoreSlim _looking = new(1);
    private readonly TortureEvents _events = new();
    private readonly Patience _patience = new(s_patience);
    private readonly List<Task> _stops = [];
    private readonly List<ChildVm> _killed = [];
    private ChildVm? _source;
    private ChildVm? _destination;
    private ChildHolder? _holder;
    private TortureRelay? _relay;

    /// <summary>Whether the destination was killed with the guest, and whether that has gone back to the switchover.</summary>
    private volatile bool _isKilled;
    private bool _isRolledBack;

    /// <summary>Whether the source was killed and another process serves for it, and whether the destination had all when it was.</summary>
    private volatile bool _isServed;
    private volatile bool _isServedOut;

    /// <summary>How the source was when both sides were looked at last.</summary>
    private VmStatus? _sourceSeen;

    /// <summary>What the source had reached when the guest was first seen at the destination.</summary>
    private (ulong? Passes, ulong? Checked)? _left;

    /// <summary>Carries the plan out.</summary>
    /// <param name="cancellation">Ends the run and its processes.</param>
    /// <returns>What came of it.</returns>
    internal async Task<TortureResult> RunAsync(CancellationToken cancellation)
    {
        try
        {
            return await MoveAsync(cancellation);
        }
        catch (TortureFinding finding)
        {
            return Result(finding.Outcome) with { Error = finding.Message };
        }
        catch (CommandException failure)
        {
            return Result(TortureOutcome.Lost) with { Error = failure.Message };
        }
    }

    /// <summary>Ends its processes.</summary>
    public void Dispose()
    {
        _relay?.Dispose();
        _source?.Dispose();
        _destination?.Dispose();
        _holder?.Dispose();
        _killed.ForEach(static killed => killed.Dispose());
        _looking.Dispose();
    }

    private static void Check(VmStatus status, string side)
    {
        if (status.PagesWrong > 0)
        {
            throw new TortureFinding(TortureOutcome.WrongBytes, $"The guest found {status.PagesWrong} pages wrong at the {side}. {status.Error}");
        }

        if (status.State is VmState.Failed or VmState.Ended or VmState.Stalled)
        {
            throw new TortureFinding(TortureOutcome.Lost, $"The guest's state at the {side} is '{status.State}'. {status.Error}");
        }
    }

    private async Task<TortureResult> MoveAsync(CancellationToken cancellation)
    {
        string memory = options.Memory.ToString();
        _source = ChildVm.Start("source", Path.Combine(directory, "source.sock"), [
            "vm", "run", plan.Guest, "--memory", memory, "--vcpus", plan.Vcpus.ToString(CultureInfo.InvariantCulture), "--backing", plan.Backing]);
        if (plan.HasHolder)
        {
            _holder = await ChildHolder.StartAsync(Path.Combine(directory, "holder.sock"), cancellation);
        }

        IPEndPoint target = await ReceiveAsync(cancellation);
        await _source.ConnectAsync(cancellation);
        _relay = new TortureRelay(plan.Disturbances, _events, disturbance => DisturbAsync(disturbance, cancellation)) { Target = target };
        _ = await AwaitPassesAsync(_source, "source", 1, cancellation);

        VmStatus? left = await TryMigrateAsync(cancellation);
        TortureOutcome outcome = _isServed ? TortureOutcome.RecoveredByCommand : TortureOutcome.Recovered;
        if (left is null)
        {
            outcome = _isRolledBack ? TortureOutcome.RolledBack : TortureOutcome.FailedBefore;
            _relay.Calm();
            await Task.WhenAll(_stops);
            left = await MigrateAgainAsync(cancellation);
        }
        else if (_relay.Begun == 0)
        {
            outcome = TortureOutcome.Undisturbed;
        }

        VmStatus arrived = await ConfirmAsync(cancellation);

        // An engine counts the faults that it answers from when it has read of them: what was waited for without one is added.
        double fault = ((arrived.Migration?.FaultLatencyUs?.Max ?? 0) / 1000) + (arrived.Engine?.LongestAbsenceMs ?? 0);
        double stall = Math.Max(left.Migration?.DowntimeMs ?? 0, fault);
        return Result(outcome) with { LongestStallMs = Math.Round(stall, 1), Reconnects = left.Migration?.Reconnects ?? 0 };
    }

    private TortureResult Result(TortureOutcome outcome) => new() { Plan = plan, Outcome = outcome, Events = _events.Lines };

    private async Task<IPEndPoint> ReceiveAsync(CancellationToken cancellation)
    {
        // One that was killed left it.
        string control = Path.Combine(directory, "destination.sock");
        File.Delete(control);
        string[] engine = plan.HasSeparateEngine ? ["--engine", EngineWord.Separate, "--backing", BackingWord.Memfd] : [];
        _destination = ChildVm.Start("destination", control, [
            "vm", "receive", "--listen", "127.0.0.1:0", "--link-timeout", string.Create(CultureInfo.InvariantCulture, $"{s_linkTimeout.TotalMilliseconds}ms"), .. engine]);
        await _destination.ConnectAsync(cancellation);
        VmStatus waiting = await _destination.StatusAsync(cancellation);
        return IPEndPoint.Parse(waiting.Listen ?? throw new CommandException("The destination does not say where it listens."));
    }

    /// <returns>The source's status after the migration; null if it failed and the guest is the source's.</returns>
    private async Task<VmStatus?> TryMigrateAsync(CancellationToken cancellation)
    {
        var settings = new MigrationSettings { Mode = plan.Mode, MaxPostcopyBandwidth = plan.MaxPostcopyBandwidth, LinkTimeoutMs = s_linkTimeout.TotalMilliseconds };
        Task<VmStatus> moving = _source!.AskApartAsync(new ControlRequest { Command = ControlRequest.Migrate, To = _relay!.Endpoint, Migration = settings, Holder = _holder?.Path }, cancellation);
        try
        {
            while (await Task.WhenAny(moving, Task.Delay(s_pollInterval, cancellation)) != moving)
            {
                cancellation.ThrowIfCancellationRequested();
                await LookAsync(cancellation);
                if (_isKilled && !_isRolledBack)
                {
                    await RollBackAsync(cancellation);
                }
            }
        }
        finally
        {
            // Whatever is found first ends the run; what the source says to it then is of no use.
            _ = moving.ContinueWith(static ended => ended.Exception, CancellationToken.None, TaskContinuationOptions.OnlyOnFaulted, TaskScheduler.Default);
        }

        try
        {
            return await moving;
        }
        catch (CommandException failure)
        {
            if (await AwaitServedAsync(cancellation) is { } served)
            {
                return served;
            }

            VmStatus source = await _source.StatusAsync(cancellation);
            Check(source, "source");
            _events.Add($"the migration failed: {failure.Message}");
            return _left is null
                ? null
                : throw new TortureFinding(TortureOutcome.Lost, $"The guest is at the destination, and its source gave up in state '{source.State}': {failure.Message}");
        }
    }

    /// <summary>Waits until whoever serves for a source that was killed has given the destination all.</summary>
    /// <returns>Its status then, or the destination's if that had all already; null if the source was not killed.</returns>
    private async Task<VmStatus?> AwaitServedAsync(CancellationToken cancellation)
    {
        VmStatus destination = await LookAsync(cancellation);
        while (_isServed && !_isServedOut && _sourceSeen!.State != VmState.Moved)
        {
            await Task.Delay(s_pollInterval, cancellation);
            destination = await LookAsync(cancellation);
        }

        return _isServedOut ? destination : _isServed ? _sourceSeen : null;
    }

    /// <summary>Does what a person does whose destination is gone.</summary>
    private async Task RollBackAsync(CancellationToken cancellation)
    {
        for (VmStatus source = await _source!.StatusAsync(cancellation); source.Migration?.Phase != "postcopy_paused"; source = await _source.StatusAsync(cancellation))
        {
            Check(source, "source");
            await Task.Delay(s_pollInterval, cancellation);
        }

        _ = await _source.AskApartAsync(new ControlRequest { Command = ControlRequest.Rollback, DestinationIsFenced = true }, cancellation);
        _isRolledBack = true;
        _events.Add("rolled back");
    }

    /// <summary>Has a guest that stayed at the source go on there, and moves it undisturbed.</summary>
    private async Task<VmStatus> MigrateAgainAsync(CancellationToken cancellation)
    {
        VmStatus stayed = await _source!.StatusAsync(cancellation);
        _ = await AwaitPassesAsync(_source, "source", (stayed.PassesHere ?? 0) + 1, cancellation);
        long deadline = Environment.TickCount64 + (long)s_nextPatience.TotalMilliseconds;
        while (Environment.TickCount64 < deadline)
        {
            if (await TryMigrateAsync(cancellation) is { } left)
            {
                _events.Add("migrated again");
                return left;
            }

            await Task.Delay(s_retryInterval, cancellation);
        }

        throw new TortureFinding(TortureOutcome.Lost, string.Create(CultureInfo.InvariantCulture, $"The guest runs on at the source and could not be moved in {s_nextPatience.TotalSeconds:F0} s of trying without disturbance."));
    }

    /// <summary>Waits until the guest has certainly checked all its memory at the destination.</summary>
    private async Task<VmStatus> ConfirmAsync(CancellationToken cancellation)
    {
        VmStatus whole = await LookAsync(cancellation);
        while (whole.State != VmState.Running)
        {
            // The source is told that the guest has all its memory before a status says so.
            await Task.Delay(s_pollInterval, cancellation);
            whole = await LookAsync(cancellation);
        }

        if (whole.Migration is not { } migration || migration.PagesDone < migration.PagesTotal)
        {
            throw new TortureFinding(TortureOutcome.Lost, $"Only {whole.Migration?.PagesDone} of {whole.Migration?.PagesTotal} pages are at the destination.");
        }

        // The pass that it is in began before: only the ones after it are sure to check every page.
        ulong enough = (whole.PassesHere ?? 0) + 3;
        while (whole.PassesHere < enough)
        {
            await Task.Delay(s_pollInterval, cancellation);
            whole = await LookAsync(cancellation);
        }

        return whole;
    }

    private async Task<VmStatus> AwaitPassesAsync(ChildVm child, string side, ulong passes, CancellationToken cancellation)
    {
        while (true)
        {
            VmStatus status = await child.StatusAsync(cancellation);
            Check(status, side);
            if (status.PassesHere >= passes)
            {
                return status;
            }

            _patience.Observe(status);
            await Task.Delay(s_pollInterval, cancellation);
        }
    }

    /// <summary>Looks at both sides: once the guest was seen at the destination, the source's stands still.</summary>
    /// <returns>The destination's status.</returns>
    private async Task<VmStatus> LookAsync(CancellationToken cancellation)
    {
        await _looking.WaitAsync(cancellation);
        try
        {
            VmStatus destination = await _destination!.StatusAsync(cancellation);
            Check(destination, "destination");
            _patience.Observe(destination);
            if (_isServedOut)
            {
                return destination;
            }

            VmStatus source = await _source!.StatusAsync(cancellation);
            Check(source, "source");
            _sourceSeen = source;
            if (destination.State is VmState.Arriving or VmState.Running)
            {
                (ulong?, ulong?) reached = (source.Passes, source.PagesChecked);
                _left ??= reached;
                if (reached != _left || source.State == VmState.Running)
                {
                    throw new TortureFinding(
                        TortureOutcome.BothRunning, $"The guest is at the destination in state '{destination.State}' and at the source in state '{source.State}': it went on there from {_left} to {reached} (passes, pages checked).");
                }
            }

            return destination;
        }
        finally
        {
            _ = _looking.Release();
        }
    }

    private async Task DisturbAsync(Disturbance disturbance, CancellationToken cancellation)
    {
        Func<CancellationToken, Task>? kill = disturbance.Scenario switch
        {
            TortureScenario.KillDestination => ReplaceDestinationAsync,
            TortureScenario.KillEngine => KillEngineAsync,
            TortureScenario.KillArrived => KillArrivedAsync,
            TortureScenario.KillSource => KillSourceAsync,
            _ => null,
        };
        if (kill is not null)
        {
            // Nobody looks at the sides meanwhile.
            await _looking.WaitAsync(cancellation);
            try
            {
                await kill(cancellation);
            }
            finally
            {
                _ = _looking.Release();
            }

            return;
        }

        Task stop = (disturbance.Scenario == TortureScenario.StopSource ? _source! : _destination!).StopAsync(disturbance.Lasts, cancellation);
        lock (_stops)
        {
            _stops.Add(stop);
        }

        await stop;
    }

    private async Task KillEngineAsync(CancellationToken cancellation)
    {
        try
        {
            VmStatus destination = await _destination!.StatusAsync(cancellation);
            if (destination.Engine?.Pid is { } pid)
            {
                using var engine = Process.GetProcessById(pid);
                engine.Kill();
                _events.Add($"killed the engine {pid}; the destination's state is '{destination.State}'");
            }
            else
            {
                _events.Add("there is no engine to kill");
            }
        }
        catch (ArgumentException)
        {
            _events.Add("the engine has ended by itself");
        }
    }

    /// <summary>Kills the destination with the guest, if that runs there and its source still has what it lacks.</summary>
    private async Task KillArrivedAsync(CancellationToken cancellation)
    {
        VmStatus destination = await _destination!.StatusAsync(cancellation);
        if (destination.State != VmState.Arriving)
        {
            _events.Add($"the destination is not killed: its state is {destination.State}");
            return;
        }

        _destination.Dispose();
        _relay!.Replace(await ReceiveAsync(cancellation));
        _left = null;
        _isKilled = true;
        _events.Add("killed the destination with the guest; another one waits");
    }

    /// <summary>Kills the source, or who serves for it, if the guest runs at the destination and lacks pages; does what a person does then.</summary>
    private async Task KillSourceAsync(CancellationToken cancellation)
    {
        VmStatus destination = await _destination!.StatusAsync(cancellation);
        VmStatus source = await _source!.StatusAsync(cancellation);
        if (destination.State != VmState.Arriving || source.State != VmState.Leaving)
        {
            _events.Add($"the source is not killed: its state is {source.State}, and the destination's {destination.State}");
            return;
        }

        _source.Kill();
        _killed.Add(_source);
        _isServed = true;
        _left = null;
        string control = Path.Combine(directory, "source.sock");
        File.Delete(control);
        _source = ChildVm.Start("process that serves", control, ["vm", "serve", "--holder", _holder!.Path]);
        try
        {
            await _source.ConnectAsync(cancellation);
            _events.Add("killed the source; another process serves");
        }
        catch (CommandException failure) when (failure.Message.Contains("nothing to serve", StringComparison.Ordinal))
        {
            // It had just heard that the destination has all, which is made certain as always.
            _isServedOut = true;
            _events.Add($"killed the source: {failure.Message}");
        }
    }

    /// <summary>
    /// Kills the destination, unless the source may have let the guest go. Nothing passes the relay meanwhile, so a source that has not told the machine state can't be
    /// answered that it is loaded, and does not let the guest go.
    /// </summary>
    private async Task ReplaceDestinationAsync(CancellationToken cancellation)
    {
        VmStatus source = await _source!.StatusAsync(cancellation);
        if (source.Migration is not { Phase: "preparing" or "pre_copy" })
        {
            _events.Add($"the destination is not killed: the source's phase is {source.Migration?.Phase}");
            return;
        }

        _destination!.Dispose();
        IPEndPoint target = await ReceiveAsync(cancellation);
        _relay!.Replace(target);
        _events.Add("killed the destination; another one waits");
    }
}
