using System.Diagnostics;
using System.Globalization;
using Pageferry.Criu;
using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary>Processes that <c>criu dump --lazy-pages</c> has dumped but for their memory, and keeps frozen until one of three things is done: nothing leaves them frozen.</summary>
internal sealed class LazyDump : IDisposable
{
    /// <summary>How long CRIU may take to dump processes without their memory, and to let go of them: they are frozen meanwhile.</summary>
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    /// <summary>How long a dump that was cancelled may take to come to its end, where it can be given up in order.</summary>
    private static readonly TimeSpan s_toEnd = TimeSpan.FromSeconds(2);

    private static readonly TimeSpan s_betweenLooks = TimeSpan.FromMilliseconds(100);

    private readonly Process _criu;
    private readonly Task _ended;
    private readonly Process _guard;
    private readonly DumpHook _hook;
    private readonly UnixSocket _socket;
    private readonly string _log;
    private readonly int _root;
    private readonly int[] _pids;

    private LazyDump(Process criu, Process guard, DumpHook hook, UnixSocket socket, string images, string log, ProcessSurvey survey, long frozenAt)
    {
        _criu = criu;
        _ended = criu.WaitForExitAsync();
        _guard = guard;
        _hook = hook;
        _socket = socket;
        _log = log;
        _root = survey.Root;

        // What has ended and was not waited for has no memory, and nothing to be kept from.
        _pids = [.. survey.PidsByImage().Where(process => File.Exists(Path.Combine(images, $"mm-{process.Key}.img"))).Select(static process => process.Value)];
        FrozenAt = frozenAt;
    }

    /// <summary>When the processes were frozen, in <see cref="Stopwatch"/>'s ticks.</summary>
    internal long FrozenAt { get; }

    /// <summary>Freezes processes and dumps all but their memory.</summary>
    /// <param name="criu">The CRIU.</param>
    /// <param name="survey">The processes.</param>
    /// <param name="images">Where the images go.</param>
    /// <param name="traits">How they are dumped.</param>
    /// <param name="cancellation">Ends it.</param>
    /// <returns>The processes, frozen; also when it was cancelled and had come to its end.</returns>
    /// <exception cref="CommandException">CRIU failed, or was killed since it did not end; the processes go on.</exception>
    internal static async Task<LazyDump> StartAsync(CriuProgram criu, ProcessSurvey survey, string images, CriuTraits traits, CancellationToken cancellation)
    {
        string log = Path.Combine(images, "dump.log");
        (UnixSocket ours, UnixSocket criuEnd) = UnixSocket.CreatePair(UnixSocketType.Stream);
        DumpHook? hook = null;
        Process? guard = null;
        Process? dump = null;
        try
        {
            hook = await DumpHook.MakeAsync(images);
            using (criuEnd)
            {
                // CRIU takes the end of its socket for success, and kills the processes: so it has both ends, and they are ended by words alone.
                using FileDescriptor oursForPrograms = ours.Descriptor.DuplicateForPrograms();
                guard = StartGuard(oursForPrograms.Number, images);
                using FileDescriptor forCriu = criuEnd.Descriptor.DuplicateForPrograms();
                if (await guard.StandardOutput.ReadLineAsync(CancellationToken.None) is null)
                {
                    throw new CommandException("Could not start the process that frees the processes if this command ends early.");
                }

                using var watch = new FreezeWatch(survey.Root);
                dump = criu.Start([
                    "dump", "-t", survey.Root.ToString(CultureInfo.InvariantCulture), "-D", images, "-v2", "-o", log, "--lazy-pages",
                    "--ps-socket", forCriu.Number.ToString(CultureInfo.InvariantCulture), "--action-script", hook.Path, .. traits.Options()]);
                forCriu.Dispose();
                oursForPrograms.Dispose();
                Task ended = dump.WaitForExitAsync(CancellationToken.None);
                if (!await IsInTimeAsync(Task.WhenAny(hook.IsDumped, ended), cancellation))
                {
                    await KillAsync(dump);
                    string connections = traits.TcpEstablished ? " Connections that CRIU held for the dump may be lost." : string.Empty;
                    throw cancellation.IsCancellationRequested
                        ? new CommandException($"The move was cancelled, and CRIU killed in the middle of its dump: process {survey.Root} goes on here.{connections}", ExitCode.Interrupted)
                        : new CommandException($"CRIU has not dumped process {survey.Root} within {s_patience.TotalSeconds:F0} s, and was killed: the process goes on here.{connections} {CriuAdvice.ExplainLog(log)}");
                }

                if (!hook.IsDumped.IsCompleted)
                {
                    throw new CommandException($"CRIU could not dump process {survey.Root}, which goes on here. {CriuAdvice.ExplainLog(log)}");
                }

                return new LazyDump(dump, guard, hook, ours, images, log, survey, watch.FrozenAt);
            }
        }
        catch
        {
            EndGuard(guard);
            dump?.Dispose();
            hook?.Dispose();
            ours.Dispose();
            throw;
        }
    }

    /// <summary>Waits for what comes of the destination, as long as CRIU keeps all processes frozen: whoever kills it frees them, and one that is killed has no memory to be fetched.</summary>
    /// <param name="destination">What is waited for.</param>
    /// <exception cref="CommandException">CRIU does not keep one of them frozen any more.</exception>
    internal async Task WhileFrozenAsync(Task destination)
    {
        while (await Task.WhenAny(destination, _ended, Task.Delay(s_betweenLooks)) != destination)
        {
            HoldFrozen();
        }

        await destination;
    }

    /// <summary>From now on nothing lets the processes go on here: not the end of this command, nor of CRIU.</summary>
    /// <exception cref="CommandException">CRIU does not keep one of them frozen any more.</exception>
    internal void Hold()
    {
        Array.ForEach(_pids, OtherProcess.Stop);

        // What CRIU still traces has not run since it was dumped; and if CRIU ends from now on, it stops.
        HoldFrozen();
        _hook.Hold();
        _guard.StandardInput.WriteLine();
    }

    /// <summary>Lets the processes go on here.</summary>
    /// <param name="isHeld">Whether they were held.</param>
    /// <returns>Completes when they do.</returns>
    internal async Task GiveUpAsync(bool isHeld)
    {
        _hook.GoOn();
        if (!HasCriuEnded(LazyDumpEnd.GiveUp) && await Task.WhenAny(_ended, Task.Delay(s_patience)) != _ended)
        {
            await KillAsync(_criu);
        }

        if (isHeld)
        {
            TellEach(OtherProcess.Continue);
        }
    }

    /// <summary>Ends the processes here: they run elsewhere, with all their memory.</summary>
    /// <exception cref="CommandException">CRIU did not end them.</exception>
    internal async Task FinishAsync()
    {
        _hook.Finish();
        if (HasCriuEnded(LazyDumpEnd.Finish))
        {
            TellEach(OtherProcess.Kill);
            return;
        }

        try
        {
            await _ended.WaitAsync(s_patience);
        }
        catch (TimeoutException)
        {
            throw new CommandException($"Process {_root} runs at the destination with all its memory, but CRIU, process {_criu.Id}, has not ended it here within {s_patience.TotalSeconds:F0} s: kill both. {CriuAdvice.ExplainLog(_log)}");
        }

        if (_criu.ExitCode != 0)
        {
            throw new CommandException($"Process {_root} runs at the destination with all its memory, but CRIU did not end it here, where it stands still: kill it. {CriuAdvice.ExplainLog(_log)}");
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        EndGuard(_guard);
        _criu.Dispose();
        _hook.Dispose();
        _socket.Dispose();
    }

    /// <summary>Waits for something as long as a dump may take; once it was cancelled, for a moment more.</summary>
    /// <returns>Whether it came.</returns>
    private static async Task<bool> IsInTimeAsync(Task task, CancellationToken cancellation)
    {
        _ = await Task.WhenAny(task, Task.Delay(s_patience, cancellation));
        if (cancellation.IsCancellationRequested)
        {
            _ = await Task.WhenAny(task, Task.Delay(s_toEnd, CancellationToken.None));
        }

        return task.IsCompleted;
    }

    /// <summary>Ends a CRIU that hangs: the kernel lets go of what it traces.</summary>
    private static async Task KillAsync(Process criu)
    {
        criu.Kill(entireProcessTree: true);

        // Not for the end of its output, which what it has started may hold open.
        _ = await Task.Run(() => criu.WaitForExit(s_toEnd));
    }

    private static Process StartGuard(int socket, string images)
    {
        ProcessStartInfo info = SelfCommand.StartInfo("criu", CriuGuardCommand.Name, "--socket", socket.ToString(CultureInfo.InvariantCulture), "--images-dir", images);
        info.UseShellExecute = false;
        info.RedirectStandardInput = true;
        info.RedirectStandardOutput = true;
        return Process.Start(info)!;
    }

    private static void EndGuard(Process? guard)
    {
        try
        {
            guard?.StandardInput.WriteLine();
        }
        catch (IOException)
        {
            // It has ended.
        }

        guard?.Dispose();
    }

    /// <summary>Tells each of the processes something that still is there.</summary>
    private void TellEach(Action<int> tell)
    {
        foreach (int pid in _pids)
        {
            try
            {
                tell(pid);
            }
            catch (LinuxException failure) when (failure.Errno == Errno.ESRCH)
            {
                // Somebody has killed it.
            }
        }
    }

    private void HoldFrozen()
    {
        if (_ended.IsCompleted || !Array.TrueForAll(_pids, static pid => ProcFiles.Stat(pid) is ["t", ..]))
        {
            throw new CommandException(
                $"CRIU, process {_criu.Id}, does not keep process {_root} and its descendants frozen any more: one of these was killed. What runs on may have lost connections, if CRIU held them for the dump.");
        }
    }

    /// <summary>Tells CRIU how to end.</summary>
    /// <returns>Whether it could not be told, since somebody has killed it: what it kept frozen runs on, or stands still if it is held.</returns>
    private bool HasCriuEnded(Action<UnixSocket> tell)
    {
        try
        {
            // Its script, which outlives it, has its socket too.
            tell(_socket);
            return _ended.IsCompleted;
        }
        catch (LinuxException failure) when (failure.Errno is Errno.EPIPE or Errno.ECONNRESET)
        {
            return true;
        }
    }
}
