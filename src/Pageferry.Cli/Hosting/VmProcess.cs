using System.Globalization;
using Pageferry.Linux;
using Pageferry.Memory;
using Pageferry.Migration;
using Pageferry.Snapshots;
using Pageferry.Vmm;

namespace Pageferry.Cli;

/// <summary>
/// A process around one guest: runs it or waits for it, takes requests on the control socket, moves it away, and ends when the guest has
/// ended or left.
/// </summary>
internal sealed class VmProcess : IDisposable
{
    private static readonly TimeSpan s_progressInterval = TimeSpan.FromMilliseconds(100);
    private static readonly TimeSpan s_exportInterval = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan s_watchInterval = TimeSpan.FromMilliseconds(200);

    /// <summary>How long a vCPU may take to stop that waits for a page.</summary>
    private static readonly TimeSpan s_stopPatience = TimeSpan.FromSeconds(10);

    /// <summary>How long an attempt to find the destination may go on after it was given up.</summary>
    private static readonly TimeSpan s_givingUp = TimeSpan.FromSeconds(60);

    private readonly VmProcessOptions _options;
    private readonly FaultDelivery _delivery;
    private readonly GuestArming _arming;

    /// <summary>Held while memory is armed, and while a guest that is about to leave is disarmed; taken before the other.</summary>
    private readonly Lock _armingLock = new();
    private readonly Lock _lock = new();
    private readonly TaskCompletionSource<int> _end = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly EndRequest _endRequest;

    /// <summary>Whether it was told to end by a signal, and said what would be lost.</summary>
    private bool _isWarned;
    private Guid _id;
    private IMachine? _machine;
    private GuestPause? _pause;
    private Departure? _departure;

    /// <summary>What was left of a guest that is served from here; null where none is.</summary>
    private SourceRecord? _served;

    /// <summary>A machine for that guest, made before anybody is asked to drop it elsewhere.</summary>
    private IMachine? _standby;
    private readonly Lock _standingBy = new();
    private IArrival? _arrival;
    private string _state = VmState.Waiting;
    private string? _error;

    private VmProcess(VmProcessOptions options)
    {
        _options = options;
        _delivery = DeliveryWord.Choose(options.Delivery);
        _arming = new GuestArming(_delivery, new OutputLogger(options.Output));
        _endRequest = new EndRequest(MayEnd);
    }

    /// <inheritdoc/>
    public void Dispose() => _endRequest.Dispose();

    /// <summary>Runs a guest until it ends, leaves or is stopped.</summary>
    /// <param name="guest">What to run.</param>
    /// <param name="options">How the process behaves.</param>
    /// <returns>The exit status.</returns>
    /// <exception cref="CommandException">The guest can't be run as asked.</exception>
    internal static async Task<int> RunAsync(GuestOptions guest, VmProcessOptions options)
    {
        // A guest that can't be made leaves no socket behind, and a socket that can't be made costs no more than a guest that never ran.
        using var process = new VmProcess(options);
        return await process.HostAsync(MachineFactory.Create(guest), Guid.NewGuid(), isPaused: false, $"Guest '{guest.Guest}'");
    }

    /// <summary>Runs a guest that was taken out of a migration and made whole.</summary>
    /// <param name="path">Where it is.</param>
    /// <param name="backing">What is to hold its memory, one of the constants of <see cref="BackingWord"/>; null for what held it before.</param>
    /// <param name="dirtyTracking">One of the constants of <see cref="DirtyTrackingWord"/>.</param>
    /// <param name="options">How the process behaves.</param>
    /// <returns>The exit status.</returns>
    /// <exception cref="CommandException">The guest can't be run.</exception>
    internal static async Task<int> RunSnapshotAsync(string path, string? backing, string dirtyTracking, VmProcessOptions options)
    {
        using var process = new VmProcess(options);
        IMachine machine = MachineFactory.Load(path, backing is null ? null : BackingWord.Parse(backing), DirtyTrackingWord.Parse(dirtyTracking), out SnapshotHeader header);
        return await process.HostAsync(machine, header.Guest, header.IsPaused, $"The guest of {path}");
    }

    private async Task<int> HostAsync(IMachine machine, Guid id, bool isPaused, string name)
    {
        await using ControlServer control = ControlServer.Start(_options.ControlPath, HandleAsync);
        var pause = new GuestPause(machine);
        Adopt(id, machine, pause, VmState.Running);
        // Said before the guest can say anything itself.
        Say("started", $"{name} {(isPaused ? "stands still" : "runs")} on {HostWord.Of(machine.Host)} with {MemorySize.Format(machine.Memory.Size)} of memory and {machine.VcpuCount} vCPU; userfaults by {DeliveryWord.Of(_delivery)}, writes tracked by {DirtyTrackingWord.Of(machine.DirtyTracking)}; control socket {_options.ControlPath}");
        pause.Start(isPaused);
        return await _end.Task;
    }

    /// <summary>Waits for a guest to arrive, and runs it until it ends, leaves or is stopped.</summary>
    /// <param name="listen">Where to wait.</param>
    /// <param name="settings">Who this side is and whom it trusts.</param>
    /// <param name="backing">What is to hold the guest's memory; null for what held it at the source.</param>
    /// <param name="dirtyTracking">One of the constants of <see cref="DirtyTrackingWord"/>.</param>
    /// <param name="options">How the process behaves.</param>
    /// <returns>The exit status.</returns>
    /// <exception cref="CommandException">It can't wait there.</exception>
    internal static async Task<int> ReceiveAsync(
        NetworkEndpoint listen, SecuritySettings settings, string? backing, string dirtyTracking, VmProcessOptions options)
    {
        string? refusal = dirtyTracking is DirtyTrackingWord.Ring ? KvmExamination.WhyNoDirtyRing() : null;
        refusal ??= backing is BackingWord.GuestMemfd ? MemoryExamination.WhyNot(GuestBacking.GuestMemfd, FaultDelivery.Queue) : null;
        refusal ??= options.HasSeparateEngine && backing is not null ? EngineWord.WhyNotSeparate(BackingWord.Parse(backing)) : null;
        if (refusal is not null)
        {
            throw new CommandException(refusal);
        }

        using var process = new VmProcess(options);
        using MigrationSecurity? security = settings.Load();
        var arrivalOptions = new ArrivalOptions(
            backing is null ? null : BackingWord.Parse(backing), process._delivery, DirtyTrackingWord.Parse(dirtyTracking), security, settings.InsecureNetwork, options.ReconnectFor, options.LinkTimeout, options.StallWarning, ReportFile.At(options.Report));
        IArrival arrival = options.HasSeparateEngine
            ? SeparateArrival.Listen(listen, options.EngineSocket, arrivalOptions, settings, options.Output)
            : Arrival.Listen(listen, arrivalOptions, new OutputLogger(options.Output));
        process._arrival = arrival;
        try
        {
            await using ControlServer control = ControlServer.Start(options.ControlPath, process.HandleAsync);
            process.Say("listening", $"Waits for a guest on {arrival.Endpoint}{(security is null ? string.Empty : " under TLS")}; userfaults by {DeliveryWord.Of(process._delivery)}; control socket {options.ControlPath}");
            _ = process.WatchArrivalAsync();
            return await process._end.Task;
        }
        finally
        {
            arrival.Dispose();
        }
    }

    /// <summary>Serves a guest that another process let go of, until the destination has all of it.</summary>
    /// <param name="holder">The socket of the holder that keeps what that process left.</param>
    /// <param name="reconnectFor">How long the destination is looked for; null for as long as that process would have.</param>
    /// <param name="options">How the process behaves. When it ends early, what is kept stays, for another process to serve.</param>
    /// <returns>The exit status.</returns>
    /// <exception cref="CommandException">There is nothing that could be served.</exception>
    internal static async Task<int> ServeAsync(string holder, TimeSpan? reconnectFor, VmProcessOptions options)
    {
        using var process = new VmProcess(options);
        TakenSource taken = await TakenSource.TakeAsync(holder, process._endRequest.Token);
        using var keeper = new HolderKeeper(taken.Client, taken.Name, taken.Secret, taken.Memory);
        if (!NetworkEndpoint.TryParse(taken.Source.To, anyPort: false, out NetworkEndpoint? to, out string error))
        {
            throw new CommandException($"Could not serve the guest that is kept at {holder}: {error}");
        }

        MigrationOptions migration = taken.Source.Migration.ToOptions() with { Security = taken.Source.Security?.Load(), InsecureNetwork = taken.Source.Security?.InsecureNetwork ?? false };
        migration = migration with { ReconnectFor = reconnectFor ?? migration.ReconnectFor };
        var guest = new ServedGuest(taken.Record, taken.Memory, () => process.StandBy(process._departure!), process.RunHere);
        process._id = guest.Id;
        process._served = taken.Record;
        process._departure = new Departure(guest, to!, migration, taken.Source.Migration, report: null, keeper, taken.Record);
        process._state = VmState.Leaving;
        await using ControlServer control = ControlServer.Start(options.ControlPath, process.HandleAsync);
        process.Say("serving", $"Serves {MemorySize.Format(taken.Memory.Size)} of a guest's memory, kept at {holder}, to {to}; control socket {options.ControlPath}");
        _ = process.FollowServingAsync(to!);
        return await process._end.Task;
    }

    private async Task FollowServingAsync(NetworkEndpoint to)
    {
        try
        {
            await FollowAsync(_departure!, _departure!.ResumeAsync(to), to, static _ => Task.CompletedTask);
        }
        catch (CommandException)
        {
            // Said already; the process stays, for a person to decide.
        }
    }

    /// <summary>Makes a machine that a guest which is served from here can go on in: where none can be made, nobody is asked to drop it.</summary>
    private void StandBy(Departure departure)
    {
        lock (_standingBy)
        {
            if (_served is not { } record || _standby is not null)
            {
                return;
            }

            IMachine? machine = null;
            try
            {
                // Around a view of its own: what is served is not the machine's to give up.
                MigrationLayout layout = record.Layout;
                var memory = GuestMemory.Create(layout.Regions, layout.Backing, MemoryFile.FromDescriptor(departure.Memory.DuplicateFile(), "guest"));
                machine = MachineFactory.CreateEmpty(MachineKind.Parse(layout.MachineKind), memory, DirtyTracking.Auto);
                machine.LoadState(record.State.Span);
                _standby = machine;
            }
            catch (Exception e) when (e is CommandException or IOException or ArgumentException or NotSupportedException or InvalidDataException)
            {
                machine?.Dispose();
                throw new CommandException($"No machine can be made for it: {e.Message}");
            }
        }
    }

    /// <summary>A guest that was served from here was rolled back: it goes on here, as it was at the switchover.</summary>
    private void RunHere(SourceRecord record)
    {
        IMachine machine = _standby!;
        _served = null;
        var pause = new GuestPause(machine);
        Adopt(record.Layout.GuestId, machine, pause, VmState.Running);
        pause.Start(record.IsPaused);
    }

    private void Adopt(Guid id, IMachine machine, GuestPause pause, string state)
    {
        machine.ConsoleLine += line => _options.Output.Write("console", line);
        lock (_lock)
        {
            _id = id;
            _machine = machine;
            _pause = pause;
            _state = state;
        }

        _ = WatchGuestAsync(machine);
    }

    private async Task WatchGuestAsync(IMachine machine)
    {
        int code = await machine.Ended;
        string text = machine.Progress.Failure ?? $"The guest ended with code {code}.";
        lock (_lock)
        {
            _state = code == 0 ? VmState.Ended : VmState.Failed;
            _error = code == 0 ? null : text;
        }

        Say("ended", text);
        EndUnlessHeld(code == 0 ? ExitCode.Done : ExitCode.Failure);
    }

    private async Task WatchArrivalAsync()
    {
        IArrival arrival = _arrival!;
        string? error = null;
        try
        {
            await arrival.ReceiveAsync(guest =>
            {
                Adopt(guest.Id, guest.Machine, guest.Pause, VmState.Arriving);
                Say("state", $"The guest {(guest.Pause.IsPaused ? "stands still" : "runs")} here on {HostWord.Of(guest.Machine.Host)}, writes tracked by {DirtyTrackingWord.Of(guest.Machine.DirtyTracking)}; its memory is arriving");
            },
            reason => SayReport(arrival.WriteReport(Status(), _id, reason)),
            () =>
            {
                Become(VmState.Fenced, "The source went back to the switchover and runs the guest.");
                Say("state", "The source went back to the switchover: the guest was stopped here, and dropped");
            });
            Become(VmState.Running, error: null);
            Say("state", "The guest has all its memory");
        }
        catch (Exception e)
        {
            error = e.Message;
            Become(VmState.Stalled, error);
            Say("state", error);
            if (Status().State == VmState.Fenced)
            {
                EndUnlessHeld(ExitCode.Failure);
            }
        }

        SayReport(arrival.WriteReport(Status(), _id, error));
    }

    private async Task HandleAsync(ControlRequest request, Func<ControlAnswer, Task> answer)
    {
        switch (request.Command)
        {
            case ControlRequest.Status:
                await TellStatusAsync(request, answer);
                break;
            case ControlRequest.Stop:
                await StopAsync(request, answer);
                break;
            case ControlRequest.Migrate:
                await MigrateAsync(request, answer);
                break;
            case ControlRequest.Recover:
                await RecoverAsync(request, answer);
                break;
            case ControlRequest.ReplaceEngine:
                await (_arrival ?? throw new CommandException("The guest began here and has no engine to replace.")).ReplaceEngineAsync(request.Program);
                await answer(new ControlAnswer { Event = ControlAnswer.Done, Status = Status() });
                break;
            case ControlRequest.Export:
                await ExportAsync(request, answer);
                break;
            case ControlRequest.Rollback:
                await RollBackAsync(request, answer);
                break;
            case ControlRequest.Pause:
            case ControlRequest.Resume:
                await PauseAsync(request.Command, answer);
                break;
            case ControlRequest.Cancel:
                await CancelAsync(answer);
                break;
            case ControlRequest.Arm:
                await answer(new ControlAnswer { Event = ControlAnswer.Done, Arming = Arm("arm", machine => _arming.Arm(machine, _pause!, request)) });
                break;
            case ControlRequest.Disarm:
                await answer(new ControlAnswer { Event = ControlAnswer.Done, Arming = Arm("disarm", machine => _arming.Disarm(machine, request)) });
                break;
            default:
                throw new CommandException($"'{request.Command}' is not a request that this guest understands: status, stop, migrate, recover, export, rollback, cancel, pause, resume, arm, disarm or replace-engine.");
        }
    }

    private async Task TellStatusAsync(ControlRequest request, Func<ControlAnswer, Task> answer)
    {
        while (request.Watch is true && !_end.Task.IsCompleted)
        {
            await answer(new ControlAnswer { Event = ControlAnswer.Progress, Status = Status() });
            _ = await Task.WhenAny(_end.Task, Task.Delay(s_watchInterval));
        }

        await answer(new ControlAnswer { Event = ControlAnswer.Done, Status = Status() });
    }

    private async Task StopAsync(ControlRequest request, Func<ControlAnswer, Task> answer)
    {
        string? loss = Loss();
        if (loss is not null && request.Yes is not true)
        {
            throw new CommandException($"Process {Environment.ProcessId} was not ended. {loss} Say --yes to end it all the same.");
        }

        await answer(new ControlAnswer { Event = ControlAnswer.Done, Status = Status() });
        EndAsTold(loss, ExitCode.Done);
    }

    /// <summary>A signal asks to end.</summary>
    /// <returns>Whether it does: where more than the guest that runs here would be lost, at the second.</returns>
    private bool MayEnd()
    {
        string? loss = Loss();
        if (loss is not null && !_isWarned)
        {
            _isWarned = true;
            Say("state", $"Told to end. {loss} It goes on; told once more, it ends.");
            return false;
        }

        EndAsTold(loss, ExitCode.Interrupted);
        return true;
    }

    private void EndAsTold(string? loss, int code)
    {
        if (loss is null)
        {
            lock (_lock)
            {
                _state = _state is VmState.Moved or VmState.Failed or VmState.Exported or VmState.Fenced ? _state : VmState.Ended;
            }
        }

        _ = _end.TrySetResult(code);
    }

    /// <summary>
    /// What the end of this process would cost beside a guest that is all here, which it ends: from the switchover on, until all of its memory has followed it, a
    /// guest needs both sides. A migration that has not come so far is cancelled: else it might, before this process has ended.
    /// </summary>
    /// <returns>In whole sentences; null if nothing.</returns>
    private string? Loss()
    {
        (string state, Departure? departure, IArrival? arrival, _, _) = Sides();
        if (departure is not null && state is VmState.Leaving or VmState.Stalled)
        {
            return departure.Cancel() ? null : departure.Loss;
        }

        MigrationStatus? arriving = arrival?.Status;
        return (departure, state) is (null, VmState.Arriving or VmState.Stalled) || (state == VmState.Waiting && arriving?.Phase is "switching_over" or "postcopy_paused")
            ? $"The guest here is not whole: {Missing(arriving)} at {arriving?.Peer ?? "its source"}. It would be lost as it is now; from there it can go back to its switchover, by 'recover rollback --destination-is-fenced'."
            : null;
    }

    private static string Missing(MigrationStatus? arriving) => arriving is null
        ? "pages of it are"
        : string.Create(CultureInfo.InvariantCulture, $"{arriving.PagesRemaining:N0} of its {arriving.PagesTotal:N0} pages are");

    private ArmingReport Arm(string what, Func<IMachine, ArmingReport> arm)
    {
        lock (_armingLock)
        {
            return arm(RunningMachine($"{what} memory of the guest"));
        }
    }

    /// <summary>The machine of a guest that runs here and has all its memory.</summary>
    /// <param name="purpose">What it is wanted for.</param>
    private IMachine RunningMachine(string purpose)
    {
        lock (_lock)
        {
            return _machine is not null && _state == VmState.Running ? _machine : throw new CommandException($"Could not {purpose}: {WhyNot()}");
        }
    }

    private async Task CancelAsync(Func<ControlAnswer, Task> answer)
    {
        Departure? departure;
        lock (_lock)
        {
            departure = _state == VmState.Leaving ? _departure : null;
        }

        if (departure is null)
        {
            throw new CommandException($"There is no migration to cancel: the guest's state is '{_state}'.");
        }

        if (!departure.Cancel())
        {
            throw new CommandException("Too late to cancel: the guest runs at the destination, and its memory follows it there.");
        }

        await departure.Ended;
        await answer(new ControlAnswer { Event = ControlAnswer.Done, Status = Status() });
    }

    private async Task PauseAsync(string command, Func<ControlAnswer, Task> answer)
    {
        bool isPaused = command == ControlRequest.Pause;
        GuestPause pause = Pausable(command);
        bool wasPaused = pause.IsPaused;

        // A vCPU that waits for a page comes to a stop when it is here.
        if (!await Task.Run(() => pause.TrySet(isPaused)))
        {
            throw new CommandException($"Could not {command} the guest: it is being switched over, or has been. Ask where it goes, or here again if the migration fails.");
        }

        if (isPaused != wasPaused)
        {
            Say("state", isPaused ? "The guest stands still" : "The guest goes on");
        }

        await answer(new ControlAnswer { Event = ControlAnswer.Done, Status = Status() });
    }

    private GuestPause Pausable(string command)
    {
        lock (_lock)
        {
            return _pause is not null && CanPause ? _pause : throw new CommandException($"Could not {command} the guest: {WhyNot()}");
        }
    }

    private async Task MigrateAsync(ControlRequest request, Func<ControlAnswer, Task> answer)
    {
        if (!NetworkEndpoint.TryParse(request.To ?? string.Empty, anyPort: false, out NetworkEndpoint? endpoint, out string error))
        {
            throw new CommandException(error);
        }

        // Not ended with the request: a link that is lost is made again, as long as this process lives.
        MigrationSecurity? security = request.Security?.Load();
        MigrationSettings settings = request.Migration ?? new MigrationSettings();
        MigrationOptions options = settings.ToOptions() with { Security = security, InsecureNetwork = request.Security?.InsecureNetwork ?? false };
        Departure departure = Depart(endpoint!, options, settings, request);
        Say("state", $"The guest moves to {endpoint}");
        await FollowAsync(departure, departure.RunAsync(), endpoint!, answer);
    }

    private async Task FollowAsync(Departure departure, Task moving, NetworkEndpoint endpoint, Func<ControlAnswer, Task> answer)
    {
        bool listening = true;
        while (await Task.WhenAny(moving, Task.Delay(s_progressInterval)) != moving)
        {
            listening = listening && await TryAnswerAsync(answer, ControlAnswer.Progress);
        }

        try
        {
            await moving;
        }
        catch (InvalidOperationException refusal)
        {
            // Somebody was faster, who took the guest back or found it gone.
            Become(departure.Phase == MigrationPhase.RolledBack ? VmState.Running : VmState.Stalled, error: null);
            throw new CommandException(refusal.Message);
        }
        catch (Exception e)
        {
            bool isCancelled = departure.IsCancelled;
            bool isStalled = (e as MigrationException)?.SwitchedOver == true;
            Become(isStalled ? VmState.Stalled : VmState.Running, isCancelled ? null : e.Message);
            Say("state", e.Message);
            string? report = departure.WriteReport(Status(), e.Message);
            SayReport(report);
            departure.End(isOver: !isStalled);
            throw new CommandException(report is null ? e.Message : $"{e.Message} {report}");
        }

        Become(VmState.Moved, error: null);
        departure.End(isOver: true);
        Say("state", $"The guest is at {endpoint} and has all its memory");
        SayReport(departure.WriteReport(Status(), error: null));
        _ = await TryAnswerAsync(answer, ControlAnswer.Done);
        EndUnlessHeld(ExitCode.Done);
    }

    /// <summary>Goes on after a link was lost, at the source or at the destination.</summary>
    private async Task RecoverAsync(ControlRequest request, Func<ControlAnswer, Task> answer)
    {
        string state;
        lock (_lock)
        {
            state = _state;
        }

        if (_departure is { } departure && state is VmState.Leaving or VmState.Stalled)
        {
            if (departure.Phase is not (MigrationPhase.Paused or MigrationPhase.Stalled))
            {
                throw new CommandException($"There is no lost link to go on with: the migration's phase is '{departure.Status.Phase}'.");
            }

            if (!NetworkEndpoint.TryParse(request.To ?? string.Empty, anyPort: false, out NetworkEndpoint? endpoint, out string error))
            {
                throw new CommandException(error);
            }

            Task resumed = departure.ResumeAsync(endpoint!);
            if (state == VmState.Stalled)
            {
                Become(VmState.Leaving, error: null);
                Say("state", $"The destination is looked for at {endpoint} again");
                await FollowAsync(departure, resumed, endpoint!, answer);
                return;
            }

            try
            {
                await resumed;
            }
            catch (InvalidOperationException refusal)
            {
                throw new CommandException(refusal.Message);
            }
        }
        else if (_arrival is { IsListening: true } && state == VmState.Stalled)
        {
            Become(VmState.Arriving, error: null);
            Say("state", "The source is waited for again");
            _ = WatchArrivalAsync();
        }
        else
        {
            throw new CommandException($"There is no lost link to go on with: the guest's state is '{state}'.");
        }

        await answer(new ControlAnswer { Event = ControlAnswer.Done, Status = Status() });
    }

    /// <summary>Writes what this side has of a guest whose link is lost.</summary>
    private async Task ExportAsync(ControlRequest request, Func<ControlAnswer, Task> answer)
    {
        GuestExport.CheckPath(request.Output);
        GuestExport export;
        try
        {
            export = await TakeHalfAsync(request.Output!);
        }
        catch (Exception refusal) when (refusal is InvalidOperationException or IOException)
        {
            throw new CommandException($"Could not export the guest: {refusal.Message}");
        }

        Task writing = Task.Run(export.Write);
        bool listening = true;
        while (await Task.WhenAny(writing, Task.Delay(s_exportInterval)) != writing)
        {
            listening = listening && await TryAnswerAsync(answer, ControlAnswer.Progress, export.Report);
        }

        await writing;
        Say("state", $"What is here of the guest is in {request.Output}");
        await answer(new ControlAnswer { Event = ControlAnswer.Done, Status = Status(), Export = export.Report });
    }

    private async Task<GuestExport> TakeHalfAsync(string path)
    {
        (string state, Departure? departure, IArrival? arrival, IMachine? machine, GuestPause? pause) = Sides();
        if (departure is not null && state is VmState.Leaving or VmState.Stalled)
        {
            return new GuestExport(path, SnapshotPart.SourceHalf, departure.Half, departure.Memory);
        }

        if (arrival is null || machine is null || departure is not null || state is not (VmState.Arriving or VmState.Stalled or VmState.Exported))
        {
            throw new InvalidOperationException($"only a guest that lost its link after the switchover is in two halves, and the state here is '{state}'.");
        }

        // First the vCPUs stand still: when the guest has been taken out, its source brings none of them a page any more.
        Task holding = Task.Run(pause!.Hold);
        if (await Task.WhenAny(holding, Task.Delay(s_stopPatience)) != holding)
        {
            _ = holding.ContinueWith(_ => pause.Release(), TaskScheduler.Default);
            throw new InvalidOperationException(
                $"a vCPU did not come to a stop within {s_stopPatience.TotalSeconds:F0} s: it waits for a page that only the source has, and nothing can interrupt that. Nothing was taken out; when the source is back, the guest goes on.");
        }

        GuestHalf half;
        try
        {
            half = await Task.Run(arrival.Export);
        }
        catch
        {
            pause.Release();
            throw;
        }

        Become(VmState.Exported, error: null);
        return new GuestExport(path, SnapshotPart.DestinationHalf, half with { IsPaused = pause.IsPaused }, machine.Memory);
    }

    private (string State, Departure? Departure, IArrival? Arrival, IMachine? Machine, GuestPause? Pause) Sides()
    {
        lock (_lock)
        {
            return (_state, _departure, _arrival, _machine, _pause);
        }
    }

    /// <summary>Has the guest go on here as it was at the switchover.</summary>
    private async Task RollBackAsync(ControlRequest request, Func<ControlAnswer, Task> answer)
    {
        Departure? departure = _departure;
        if (departure is not { IsLost: true })
        {
            throw new CommandException($"Could not roll back: only a guest whose link was lost after the switchover can be, at its source, and the state here is '{Status().State}'.");
        }

        try
        {
            StandBy(departure);
        }
        catch (CommandException refusal)
        {
            throw new CommandException($"Could not roll back: {refusal.Message} The guest's memory is served on.");
        }

        // Whoever looks for the destination has to have ended.
        departure.GiveUp();
        long until = Environment.TickCount64 + (long)s_givingUp.TotalMilliseconds;
        while (Sides().State == VmState.Leaving && Environment.TickCount64 < until)
        {
            await Task.Delay(s_progressInterval);
        }

        try
        {
            await Task.Run(() => departure.RollBack(request.DestinationIsFenced ?? false));
        }
        catch (InvalidOperationException refusal)
        {
            throw new CommandException($"Could not roll back: {refusal.Message}");
        }
        catch (MigrationException failure)
        {
            throw new CommandException($"Could not roll back: {failure.Message} Nobody looks for it any more: 'vm migrate --resume' does. If its host is off, or fenced, say so with --destination-is-fenced.");
        }

        Become(VmState.Running, error: null);
        Say("state", "The guest is back at its switchover, and goes on here");
        await answer(new ControlAnswer { Event = ControlAnswer.Done, Status = Status() });
    }

    private Departure Depart(NetworkEndpoint to, MigrationOptions options, MigrationSettings settings, ControlRequest request)
    {
        ReportFile? report = ReportFile.At(settings.Report);
        if (_arrival is { IsListening: true } arrival && to.EndPoint.Equals(arrival.Endpoint))
        {
            throw new CommandException($"{to} is this process itself. Start another one to move to: pageferry vm receive --listen 127.0.0.1:0 --control SOCKET.");
        }

        string purpose = $"move the guest to {to}";
        lock (_armingLock)
        {
            // What tells the guest's writes takes the memory for itself.
            Disarm(RunningMachine(purpose), purpose);
            lock (_lock)
            {
                IMachine machine = RunningMachine(purpose);

                // The ring belongs to vCPUs from their beginning: what the guest was made with can't be changed, only be known to be right.
                string tracking = DirtyTrackingWord.Of(machine.DirtyTracking);
                if (settings.DirtyTracking is not (null or DirtyTrackingWord.Auto) && settings.DirtyTracking != tracking)
                {
                    throw new CommandException($"Could not {purpose} with --dirty-tracking {settings.DirtyTracking}: its writes are tracked by {tracking}, which is chosen when it is made, by 'vm run' or 'vm receive' with --dirty-tracking.");
                }

                HolderKeeper? keeper = request.Holder is null ? null : new HolderKeeper(request.Holder, _id, machine.Memory, record => new HeldSource
                {
                    Version = HeldSource.CurrentVersion,
                    To = to.ToString(),
                    Migration = settings,
                    Security = request.Security,
                    Record = record.Serialize(),
                });
                _departure = new Departure(new LeavingGuest(_id, machine, _pause!), to, options, settings, report, keeper);
                _state = VmState.Leaving;
                _error = null;
                return _departure;
            }
        }
    }

    private void Disarm(IMachine machine, string purpose)
    {
        try
        {
            _arming.End(machine, _pause!);
        }
        catch (LinuxException refusal)
        {
            throw new CommandException($"Could not {purpose}, for memory of it is armed: {refusal.Message}");
        }
    }

    private bool CanPause => _state is VmState.Running or VmState.Leaving or VmState.Arriving;

    private string WhyNot() => _state switch
    {
        VmState.Waiting => "no guest has arrived here yet.",
        VmState.Leaving => "it is being moved already; a guest moves once at a time. Follow that with: pageferry vm status.",
        VmState.Arriving => "its memory is still arriving here. Wait until its state is 'running'.",
        VmState.Moved => "it has left this process already.",
        VmState.Stalled => "it stalls on pages that are missing.",
        VmState.Exported => "it was taken out of this process as a file.",
        VmState.Fenced => "its source has taken it back.",
        _ => $"it does not run (state '{_state}'){(_error is null ? "." : $": {_error}")}",
    };

    // The migration goes on whether or not the client that asked for it still listens.
    private async Task<bool> TryAnswerAsync(Func<ControlAnswer, Task> answer, string kind, ExportReport? export = null)
    {
        try
        {
            await answer(new ControlAnswer { Event = kind, Status = Status(), Export = export });
            return true;
        }
        catch (IOException)
        {
            return false;
        }
    }

    private void Become(string state, string? error)
    {
        lock (_lock)
        {
            // A guest that has ended or is gone stays so, whatever its last pages do.
            if (_state is not (VmState.Ended or VmState.Failed or VmState.Exported or VmState.Fenced))
            {
                _state = state;
                _error = error;
            }
        }
    }

    private void EndUnlessHeld(int code)
    {
        if (!_options.IsHeld)
        {
            _ = _end.TrySetResult(code);
        }
    }

    private void SayReport(string? report)
    {
        if (report is not null)
        {
            Say("report", report);
        }
    }

    private void Say(string name, string text) => _options.Output.Write(name, text, Status());

    private VmStatus Status()
    {
        lock (_lock)
        {
            MachineProgress? progress = _machine?.Progress;
            return new VmStatus
            {
                State = _state == VmState.Running && _pause is { IsPaused: true } ? VmState.Paused : _state,
                Paused = CanPause || _state == VmState.Moved ? _pause?.IsPaused : null,
                Pid = Environment.ProcessId,
                Listen = _arrival is { IsListening: true } ? _arrival.Endpoint.ToString() : null,
                Host = _machine is null ? null : HostWord.Of(_machine.Host),
                MemoryBytes = _machine?.Memory.Size,
                Vcpus = _machine?.VcpuCount,
                Backing = _machine is null ? null : BackingWord.Of(_machine.Memory.Backing),
                DirtyTracking = _machine is null ? null : DirtyTrackingWord.Of(_machine.DirtyTracking),
                HugePagesCollapsed = _machine?.Memory.Collapse?.Collapsed,
                HugePagesLeft = _machine?.Memory.Collapse?.Left,
                Passes = progress?.Passes,
                PassesHere = progress?.PassesHere,
                PagesChecked = progress?.PagesChecked,
                PagesWrong = progress?.PagesWrong,
                ExitCode = progress is { Ended: true } ended ? ended.ExitCode : null,
                Error = _error,
                Delivery = DeliveryWord.Of(_delivery),
                ArmedPages = _arming.ArmedPages,
                Userfaults = _arming.Userfaults,
                Engine = _departure is null ? _arrival?.Engine : null,
                Migration = _departure?.Status ?? _arrival?.Status,
            };
        }
    }
}
