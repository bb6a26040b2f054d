using Pageferry.Memory;
using Pageferry.Migration;
using Pageferry.Vmm;

namespace Pageferry.Cli;

/// <summary>
/// A process around one guest: runs it or waits for it, takes requests on the control socket, moves it away, and ends when the guest has
/// ended or left.
/// </summary>
internal sealed class VmProcess
{
    private static readonly TimeSpan s_progressInterval = TimeSpan.FromMilliseconds(100);

    private readonly VmProcessOptions _options;
    private readonly Lock _lock = new();
    private readonly TaskCompletionSource<int> _end = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private Guid _id;
    private IMachine? _machine;
    private GuestPause? _pause;
    private Departure? _departure;
    private Arrival? _arrival;
    private string _state = VmState.Waiting;
    private string? _error;

    private VmProcess(VmProcessOptions options) => _options = options;

    /// <summary>Runs a guest until it ends, leaves or is stopped.</summary>
    /// <param name="guest">What to run.</param>
    /// <param name="options">How the process behaves.</param>
    /// <param name="cancellation">Ends the guest.</param>
    /// <returns>The exit status.</returns>
    /// <exception cref="CommandException">The guest can't be run as asked.</exception>
    internal static async Task<int> RunAsync(GuestOptions guest, VmProcessOptions options, CancellationToken cancellation)
    {
        // A guest that can't be made leaves no socket behind, and a socket that can't be made costs no more than a guest that never ran.
        IMachine machine = MachineFactory.Create(guest);
        var process = new VmProcess(options);
        await using ControlServer control = ControlServer.Start(options.ControlPath, process.HandleAsync);
        var pause = new GuestPause(machine);
        process.Adopt(Guid.NewGuid(), machine, pause, VmState.Running);
        // Said before the guest can say anything itself.
        process.Say("started", $"Guest '{guest.Guest}' runs on {HostWord.Of(machine.Host)} with {MemorySize.Format(guest.Memory.Bytes)} of memory and {guest.Vcpus} vCPU; control socket {options.ControlPath}");
        pause.Start(isPaused: false);
        return await process._end.Task.WaitAsync(cancellation);
    }

    /// <summary>Waits for a guest to arrive, and runs it until it ends, leaves or is stopped.</summary>
    /// <param name="listen">Where to wait.</param>
    /// <param name="settings">Who this side is and whom it trusts.</param>
    /// <param name="backing">What is to hold the guest's memory; null for what held it at the source.</param>
    /// <param name="options">How the process behaves.</param>
    /// <param name="cancellation">Ends the waiting and the guest.</param>
    /// <returns>The exit status.</returns>
    /// <exception cref="CommandException">It can't wait there.</exception>
    internal static async Task<int> ReceiveAsync(NetworkEndpoint listen, SecuritySettings settings, string? backing, VmProcessOptions options, CancellationToken cancellation)
    {
        var process = new VmProcess(options);
        FaultDelivery delivery = DeliveryWord.Choose(options.Delivery);
        using MigrationSecurity? security = settings.Load();
        var arrivalOptions = new ArrivalOptions(backing is null ? null : BackingWord.Parse(backing), delivery, security, settings.InsecureNetwork);
        var arrival = Arrival.Listen(listen, arrivalOptions, new OutputLogger(options.Output));
        process._arrival = arrival;
        await using ControlServer control = ControlServer.Start(options.ControlPath, process.HandleAsync);
        process.Say("listening", $"Waits for a guest on {arrival.Endpoint}{(security is null ? string.Empty : " under TLS")}; userfaults by {DeliveryWord.Of(delivery)}; control socket {options.ControlPath}");
        _ = process.WatchArrivalAsync(arrival);
        return await process._end.Task.WaitAsync(cancellation);
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

    private async Task WatchArrivalAsync(Arrival arrival)
    {
        try
        {
            await arrival.ReceiveAsync(guest =>
            {
                Adopt(guest.Id, guest.Machine, guest.Pause, VmState.Arriving);
                Say("state", $"The guest {(guest.Pause.IsPaused ? "stands still" : "runs")} here on {HostWord.Of(guest.Machine.Host)}; its memory is arriving");
            });
            Become(VmState.Running, error: null);
            Say("state", "The guest has all its memory");
        }
        catch (Exception e)
        {
            Become(VmState.Stalled, e.Message);
            Say("state", e.Message);
        }
    }

    private async Task HandleAsync(ControlRequest request, Func<ControlAnswer, Task> answer)
    {
        switch (request.Command)
        {
            case ControlRequest.Status:
                await answer(new ControlAnswer { Event = ControlAnswer.Done, Status = Status() });
                break;
            case ControlRequest.Stop:
                await answer(new ControlAnswer { Event = ControlAnswer.Done, Status = Status() });
                _ = _end.TrySetResult(ExitCode.Done);
                break;
            case ControlRequest.Migrate:
                await MigrateAsync(request, answer);
                break;
            case ControlRequest.Pause:
            case ControlRequest.Resume:
                await PauseAsync(request.Command, answer);
                break;
            case ControlRequest.Cancel:
                await CancelAsync(answer);
                break;
            default:
                throw new CommandException($"'{request.Command}' is not a request that this guest understands: status, stop, migrate, cancel, pause or resume.");
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

        using MigrationSecurity? security = request.Security?.Load();
        MigrationOptions options = (request.Migration ?? new MigrationSettings()).ToOptions() with { Security = security, InsecureNetwork = request.Security?.InsecureNetwork ?? false };
        Departure departure = Depart(endpoint!, options);
        Say("state", $"The guest moves to {endpoint}");
        Task moving = departure.RunAsync();
        bool listening = true;
        while (await Task.WhenAny(moving, Task.Delay(s_progressInterval)) != moving)
        {
            listening = listening && await TryAnswerAsync(answer, ControlAnswer.Progress);
        }

        try
        {
            await moving;
        }
        catch (Exception e)
        {
            bool isCancelled = departure.IsCancelled;
            Become(e is MigrationException { SwitchedOver: true } ? VmState.Stalled : VmState.Running, isCancelled ? null : e.Message);
            Say("state", e.Message);
            departure.End();
            throw new CommandException(e.Message);
        }

        Become(VmState.Moved, error: null);
        departure.End();
        Say("state", $"The guest is at {endpoint} and has all its memory");
        _ = await TryAnswerAsync(answer, ControlAnswer.Done);
        EndUnlessHeld(ExitCode.Done);
    }

    private Departure Depart(NetworkEndpoint to, MigrationOptions options)
    {
        lock (_lock)
        {
            if (_arrival is { IsListening: true } arrival && to.EndPoint.Equals(arrival.Endpoint))
            {
                throw new CommandException($"{to} is this process itself. Start another one to move to: pageferry vm receive --listen 127.0.0.1:0 --control SOCKET.");
            }

            if (_machine is null || _state != VmState.Running)
            {
                throw new CommandException($"Could not move the guest to {to}: {WhyNot()}");
            }

            _departure = new Departure(new LeavingGuest(_id, _machine, _pause!), to, options);
            _state = VmState.Leaving;
            return _departure;
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
        _ => $"it does not run (state '{_state}').",
    };

    // The migration goes on whether or not the client that asked for it still listens.
    private async Task<bool> TryAnswerAsync(Func<ControlAnswer, Task> answer, string kind)
    {
        try
        {
            await answer(new ControlAnswer { Event = kind, Status = Status() });
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
            // A guest that has ended stays ended, whatever its last pages do.
            if (_state is not (VmState.Ended or VmState.Failed))
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

    private void Say(string name, string text) => _options.Output.Write(name, text, Status());

    // A machine that has an engine knows; before, what a guest would get when it arrives.
    private string? DeliveryOf(IMachine? machine) => machine?.Engine is { } engine
        ? DeliveryWord.Of(engine.Delivery)
        : _arrival is { IsListening: true } arrival ? DeliveryWord.Of(arrival.Delivery) : null;

    private VmStatus Status()
    {
        lock (_lock)
        {
            MachineProgress? progress = _machine?.Progress;
            return new VmStatus
            {
                State = _state == VmState.Running && _pause!.IsPaused ? VmState.Paused : _state,
                Paused = CanPause || _state == VmState.Moved ? _pause!.IsPaused : null,
                Pid = Environment.ProcessId,
                Listen = _arrival is { IsListening: true } ? _arrival.Endpoint.ToString() : null,
                Host = _machine is null ? null : HostWord.Of(_machine.Host),
                MemoryBytes = _machine?.Memory.Size,
                Vcpus = _machine?.VcpuCount,
                Backing = _machine is null ? null : BackingWord.Of(_machine.Memory.Backing),
                Passes = progress?.Passes,
                PassesHere = progress?.PassesHere,
                PagesChecked = progress?.PagesChecked,
                PagesWrong = progress?.PagesWrong,
                ExitCode = progress is { Ended: true } ended ? ended.ExitCode : null,
                Error = _error,
                Delivery = DeliveryOf(_machine),
                Migration = _departure?.Status ?? _arrival?.Status,
            };
        }
    }
}
