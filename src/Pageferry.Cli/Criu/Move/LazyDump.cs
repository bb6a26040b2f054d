using System.Diagnostics;
using System.Globalization;
using Pageferry.Criu;
using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary>Processes that <c>criu dump --lazy-pages</c> has dumped but for their memory, and keeps frozen until one of three things is done: nothing leaves them frozen.</summary>
internal sealed class LazyDump : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    private readonly Process _criu;
    private readonly Process _guard;
    private readonly UnixSocket _socket;
    private readonly string _log;
    private readonly ProcessSurvey _survey;

    private LazyDump(Process criu, Process guard, UnixSocket socket, string log, ProcessSurvey survey, long frozenAt)
    {
        _criu = criu;
        _guard = guard;
        _socket = socket;
        _log = log;
        _survey = survey;
        FrozenAt = frozenAt;
    }

    /// <summary>When the processes were frozen, in <see cref="Stopwatch"/>'s ticks.</summary>
    internal long FrozenAt { get; }

    /// <summary>Freezes processes and dumps all but their memory.</summary>
    /// <param name="criu">The CRIU.</param>
    /// <param name="survey">The processes.</param>
    /// <param name="images">Where the images go.</param>
    /// <param name="traits">How they are dumped.</param>
    /// <returns>The processes, frozen.</returns>
    /// <exception cref="CommandException">CRIU failed; the processes go on.</exception>
    internal static async Task<LazyDump> StartAsync(CriuProgram criu, ProcessSurvey survey, string images, CriuTraits traits)
    {
        string log = Path.Combine(images, "dump.log");
        (UnixSocket ours, UnixSocket criuEnd) = UnixSocket.CreatePair(UnixSocketType.Stream);
        (UnixSocket status, UnixSocket statusEnd) = UnixSocket.CreatePair(UnixSocketType.Stream);
        Process? guard = null;
        Process? dump = null;
        try
        {
            using (criuEnd)
            using (statusEnd)
            {
                // CRIU takes the end of its socket for success, and kills the processes: so it has both ends, and they are ended by words alone.
                using FileDescriptor oursForPrograms = ours.Descriptor.DuplicateForPrograms();
                guard = StartGuard(oursForPrograms.Number, images);
                using FileDescriptor forCriu = criuEnd.Descriptor.DuplicateForPrograms();
                using FileDescriptor statusForCriu = statusEnd.Descriptor.DuplicateForPrograms();
                if (await guard.StandardOutput.ReadLineAsync() is null)
                {
                    throw new CommandException("Could not start the process that frees the processes if this command ends early.");
                }

                using var watch = new FreezeWatch(survey.Root);
                dump = criu.Start([
                    "dump", "-t", survey.Root.ToString(CultureInfo.InvariantCulture), "-D", images, "-v2", "-o", log, "--lazy-pages",
                    "--ps-socket", forCriu.Number.ToString(CultureInfo.InvariantCulture), "--status-fd", statusForCriu.Number.ToString(CultureInfo.InvariantCulture), .. traits.Options()]);
                forCriu.Dispose();
                statusForCriu.Dispose();
                oursForPrograms.Dispose();
                statusEnd.Dispose();
                bool isReady = await Task.Run(() => status.Receive(stackalloc byte[1], [], out _) == 1);
                if (!isReady)
                {
                    await dump.WaitForExitAsync();
                    throw new CommandException($"CRIU could not dump process {survey.Root}, which goes on here. {CriuAdvice.ExplainLog(log)}");
                }

                return new LazyDump(dump, guard, ours, log, survey, watch.FrozenAt);
            }
        }
        catch
        {
            EndGuard(guard);
            dump?.Dispose();
            ours.Dispose();
            throw;
        }
        finally
        {
            status.Dispose();
        }
    }

    /// <summary>From now on nothing lets the processes go on here: not the end of this command, nor of CRIU.</summary>
    internal void Hold()
    {
        foreach (int pid in _survey.PidsByImage().Values)
        {
            OtherProcess.Stop(pid);
        }

        _guard.StandardInput.WriteLine();
    }

    /// <summary>Lets the processes go on here.</summary>
    /// <param name="isHeld">Whether they were held.</param>
    /// <returns>Completes when they do.</returns>
    internal async Task GiveUpAsync(bool isHeld)
    {
        int[] pids = [.. _survey.PidsByImage().Values];
        LazyDumpEnd.GiveUp(_socket);
        await AwaitCriuAsync();
        if (isHeld)
        {
            Array.ForEach(pids, OtherProcess.Continue);
        }
    }

    /// <summary>Ends the processes here: they run elsewhere, with all their memory.</summary>
    /// <exception cref="CommandException">CRIU did not end them.</exception>
    internal async Task FinishAsync()
    {
        LazyDumpEnd.Finish(_socket);
        await AwaitCriuAsync();
        if (_criu.ExitCode != 0)
        {
            throw new CommandException($"Process {_survey.Root} runs at the destination with all its memory, but CRIU did not end it here, where it stands still: kill it. {CriuAdvice.ExplainLog(_log)}");
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        EndGuard(_guard);
        _criu.Dispose();
        _socket.Dispose();
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

    private async Task AwaitCriuAsync()
    {
        using var limit = new CancellationTokenSource(s_patience);
        try
        {
            await _criu.WaitForExitAsync(limit.Token);
        }
        catch (OperationCanceledException)
        {
            throw new CommandException($"CRIU, process {_criu.Id}, has not ended within {s_patience.TotalSeconds:F0} s; process {_survey.Root} is still frozen by it. {CriuAdvice.ExplainLog(_log)}");
        }
    }
}
