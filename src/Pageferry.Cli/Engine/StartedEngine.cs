using System.Diagnostics;
using System.Globalization;
using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary>An engine's process that the guest's has started.</summary>
internal sealed class StartedEngine : EngineProcess
{
    private readonly Process _process;

    private StartedEngine(Process process, UnixSocket calls)
        : base(calls) => _process = process;

    /// <inheritdoc/>
    internal override int Pid => _process.Id;

    /// <inheritdoc/>
    internal override bool HasEnded => _process.HasExited;

    /// <summary>Starts an engine.</summary>
    /// <param name="program">The program; null for this one.</param>
    /// <returns>The process, which the caller disposes.</returns>
    /// <exception cref="CommandException">It could not be started.</exception>
    internal static StartedEngine Start(string? program)
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.CreatePair(UnixSocketType.SequencedPackets);
        using (theirs)
        {
            // Known by its number, which nothing else that is started meanwhile makes use of.
            using FileDescriptor forEngine = theirs.Descriptor.DuplicateForPrograms();
            string[] arguments = ["engine", "--socket", forEngine.Number.ToString(CultureInfo.InvariantCulture)];
            ProcessStartInfo info = program is null ? SelfCommand.StartInfo(arguments) : new ProcessStartInfo(program, arguments);

            // The guest's process may be held by its standard input.
            info.RedirectStandardInput = true;
            try
            {
                var process = new Process { StartInfo = info };
                _ = process.Start();
                process.StandardInput.Close();
                return new StartedEngine(process, ours);
            }
            catch (Exception e) when (e is System.ComponentModel.Win32Exception or InvalidOperationException)
            {
                ours.Dispose();
                throw new CommandException($"Could not start an engine from {info.FileName}: {e.Message}. Give the path of a pageferry program that this user may run.");
            }
        }
    }

    /// <inheritdoc/>
    internal override void Kill()
    {
        try
        {
            _process.Kill();
        }
        catch (InvalidOperationException)
        {
            // It has ended.
        }
    }

    /// <inheritdoc/>
    internal override string End()
    {
        const int Killed = 137;
        if (!_process.WaitForExit(Parting))
        {
            Kill();
            _process.WaitForExit();
        }

        return _process.ExitCode == Killed ? "was killed" : string.Create(CultureInfo.InvariantCulture, $"ended with code {_process.ExitCode}");
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        Kill();
        _process.WaitForExit();
        _process.Dispose();
        base.Dispose();
    }
}
