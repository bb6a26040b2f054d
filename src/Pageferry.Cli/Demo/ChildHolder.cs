using System.Diagnostics;

namespace Pageferry.Cli;

/// <summary>A <c>hold</c> process that this process starts, and that ends with it.</summary>
internal sealed class ChildHolder : IDisposable
{
    private readonly Process _process;

    private ChildHolder(Process process, string path)
    {
        _process = process;
        Path = path;
    }

    /// <summary>Where it listens.</summary>
    internal string Path { get; }

    /// <summary>Starts one, and waits until it listens.</summary>
    /// <param name="path">Where it is to listen.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    /// <returns>It, which the caller disposes.</returns>
    /// <exception cref="CommandException">It ended instead.</exception>
    internal static async Task<ChildHolder> StartAsync(string path, CancellationToken cancellation)
    {
        ProcessStartInfo info = SelfCommand.StartInfo(["hold", "--socket", path, "--end-with-input"]);
        info.RedirectStandardInput = true;
        info.RedirectStandardOutput = true;
        var holder = new ChildHolder(new Process { StartInfo = info }, path);
        try
        {
            _ = holder._process.Start();

            // It says that it listens.
            return await holder._process.StandardOutput.ReadLineAsync(cancellation) is not null
                ? holder
                : throw new CommandException($"The holder at {path} ended and did not say why.");
        }
        catch
        {
            holder.Dispose();
            throw;
        }
    }

    /// <summary>Kills the process if it still runs, and reaps it.</summary>
    public void Dispose()
    {
        try
        {
            _process.Kill();
            _process.WaitForExit();
        }
        catch (InvalidOperationException)
        {
            // It never started.
        }

        _process.Dispose();
    }
}
