using Pageferry.Linux;

namespace Pageferry.Conformance;

/// <summary>
/// A child process that does one thing with a page and ends. A thread of its own forks it: with <c>UFFD_FEATURE_EVENT_FORK</c> that waits until the message is read.
/// </summary>
internal sealed class Child : IDisposable
{
    private const int PatienceMilliseconds = 10_000;

    private readonly Thread _forker;
    private ForkedProcess? _process;
    private LinuxException? _refusal;

    /// <param name="start">Starts a thread, and sees to it that the memory outlives it.</param>
    /// <param name="function">The function of the C library that the child runs.</param>
    /// <param name="argument">Its argument.</param>
    internal Child(Func<ThreadStart, Thread> start, string function, ulong argument) => _forker = start(() =>
    {
        try
        {
            _process = ForkedProcess.Start(function, argument);
        }
        catch (LinuxException refusal)
        {
            _refusal = refusal;
        }
    });

    /// <summary>Waits until the child has ended by itself.</summary>
    /// <returns>What it read; null if a signal ended it.</returns>
    internal byte? Through() => Forked().TryWait(PatienceMilliseconds, out byte? status)
        ? status
        : throw new CaseFailedException($"expected the child to go on, found it waiting after {PatienceMilliseconds / 1000} s");

    /// <summary>Waits until there is a child, which goes on by itself.</summary>
    internal void Begun() => _ = Forked();

    /// <summary>Ends the child. Nothing keeps it from being forked by now.</summary>
    public void Dispose()
    {
        _forker.Join();
        _process?.Dispose();
        _process = null;
    }

    private ForkedProcess Forked()
    {
        if (!_forker.Join(PatienceMilliseconds))
        {
            throw new CaseFailedException($"expected the fork to go on, found it waiting after {PatienceMilliseconds / 1000} s");
        }

        return _process ?? throw _refusal!;
    }
}
