namespace Pageferry.Linux.Tests;

/// <summary>A thread that touches memory in native code and may wait for its page.</summary>
internal sealed class Touch
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(20);

    private readonly Thread _thread;
    private byte _read;

    private Touch(MappedRegion region, ulong offset, byte? write)
    {
        _thread = new Thread(() =>
        {
            Span<byte> one = stackalloc byte[1];
            if (write is { } value)
            {
                one[0] = value;
                region.CopyIn(offset, one);
            }
            else
            {
                region.CopyOut(offset, one);
                _read = one[0];
            }
        })
        { IsBackground = true };
        _thread.Start();
    }

    public static Touch Read(MappedRegion region, ulong offset) => new(region, offset, write: null);

    public static Touch Write(MappedRegion region, ulong offset, byte value) => new(region, offset, value);

    /// <summary>Waits until the touch is done.</summary>
    /// <returns>The byte read.</returns>
    public byte Done()
    {
        Assert.True(_thread.Join(s_patience), "The thread still waits for its page.");
        return _read;
    }

    public bool IsWaiting() => !_thread.Join(TimeSpan.FromMilliseconds(50));
}
