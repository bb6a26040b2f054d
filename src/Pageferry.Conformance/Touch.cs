using Pageferry.Linux;

namespace Pageferry.Conformance;

/// <summary>A thread that touches one byte of memory in native code, and may wait for its page.</summary>
internal sealed class Touch
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan s_glance = TimeSpan.FromMilliseconds(30);

    private readonly Thread _thread;
    private byte _read;
    private Exception? _failure;

    /// <param name="start">Starts a thread, and sees to it that the memory outlives it.</param>
    /// <param name="touch">Touches, and returns the byte read.</param>
    internal Touch(Func<ThreadStart, Thread> start, Func<byte> touch) => _thread = start(() =>
    {
        try
        {
            _read = touch();
        }
        catch (Exception failure) when (failure is LinuxException or InvalidOperationException)
        {
            _failure = failure;
        }
    });

    /// <summary>Whether the thread has not come through within a glance of 30 ms.</summary>
    internal bool Waits => !_thread.Join(s_glance);

    /// <summary>Waits until the touch is through.</summary>
    /// <returns>The byte read.</returns>
    internal byte Through()
    {
        if (!_thread.Join(s_patience))
        {
            throw new CaseFailedException($"expected the thread to go on, found it waiting after {s_patience.TotalSeconds:F0} s");
        }

        return _failure is null ? _read : throw new CaseFailedException($"expected the access to succeed, found: {_failure.Message}");
    }
}
