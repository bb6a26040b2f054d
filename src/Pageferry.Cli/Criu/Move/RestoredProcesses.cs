using Pageferry.Criu;
using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary>Processes that CRIU has restored here and that stand ready, whatever their numbers stand for later.</summary>
internal sealed class RestoredProcesses : IDisposable
{
    private static readonly TimeSpan s_toEnd = TimeSpan.FromSeconds(10);

    private readonly List<ProcessDescriptor> _processes = [];

    /// <summary>Takes hold of them.</summary>
    /// <param name="imagesDirectory">What they were restored from.</param>
    /// <exception cref="IOException">The images make no sense, or there are too many open files.</exception>
    internal RestoredProcesses(string imagesDirectory)
    {
        try
        {
            foreach (ProcessEntry process in ImageSet.Open(imagesDirectory).ReadProcesses())
            {
                Add(process.Pid);
            }
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Whether the first of them has not ended.</summary>
    internal bool IsFirstAlive => _processes.Count > 0 && !_processes[0].HasEnded;

    /// <summary>Ends them.</summary>
    /// <returns>Whether all have ended: nothing of them runs here.</returns>
    internal bool TryEnd()
    {
        _processes.ForEach(static process => process.Kill());
        return _processes.TrueForAll(static process => process.Wait((int)s_toEnd.TotalMilliseconds));
    }

    /// <inheritdoc/>
    public void Dispose() => _processes.ForEach(static process => process.Dispose());

    private void Add(int pid)
    {
        try
        {
            _processes.Add(ProcessDescriptor.Open(pid));
        }
        catch (LinuxException failure) when (failure.Errno == Errno.ESRCH)
        {
            // What is not there does not run.
        }
    }
}
