namespace Pageferry.Conformance;

/// <summary>A thread that touches one byte of memory in native code, and may wait for its page.</summary>
internal sealed class Touch
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan s_glance = TimeSpan.FromMilliseconds(30);

    private readonly Thread _thread;
    private byte _read;

    internal Touch(Armed memory, ulong offset, byte? write) => _thread = memory.StartUser(() =>
    {
        Span<byte> one = stackalloc byte[1];
        if (write is { } value)
        {
            one[0] = value;
            memory.Region.CopyIn(offset, one);
        }
        else
        {
            memory.Region.CopyOut(offset, one);
            _read = one[0];
        }
    });

    /// <summary>Whether the thread has not come through within a glance of 30 ms.</summary>
    internal bool Waits => !_thread.Join(s_glance);

    /// <summary>Waits until the touch is through.</summary>
    /// <returns>The byte read.</returns>
    internal byte Through() => _thread.Join(s_patience) ? _read : throw new CaseFailedException($"expected the thread to go on, found it waiting after {s_patience.TotalSeconds:F0} s");
}
