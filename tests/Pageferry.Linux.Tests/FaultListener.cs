namespace Pageferry.Linux.Tests;

/// <summary>A userfaultfd with what is needed to read its messages one by one.</summary>
internal sealed class FaultListener : IDisposable
{
    private const int LimitMilliseconds = 10_000;

    private readonly UserfaultfdEventBuffer _buffer = new(1);
    private readonly Poll _poll;

    internal FaultListener(Userfaultfd userfaultfd)
    {
        Userfaultfd = userfaultfd;
        _poll = new Poll(userfaultfd.Descriptor);
    }

    internal FaultListener(UserfaultfdFeatures features = UserfaultfdFeatures.None, bool userModeOnly = false)
        : this(Userfaultfd.Open(features, userModeOnly))
    {
    }

    internal Userfaultfd Userfaultfd { get; }

    internal static ulong PageSize { get; } = (ulong)Environment.SystemPageSize;

    /// <summary>Reads a byte on a thread of its own, in native code.</summary>
    internal static Waiter<byte> Read(MappedRegion region, ulong offset) => new(() =>
    {
        var value = new byte[1];
        region.CopyOut(offset, value);
        return value[0];
    });

    /// <summary>Writes a byte on a thread of its own, in native code.</summary>
    internal static Waiter<byte> Write(MappedRegion region, ulong offset, byte value) => new(() =>
    {
        region.CopyIn(offset, [value]);
        return value;
    });

    /// <summary>Waits until a message can be read, and leaves it.</summary>
    internal void WaitForMessage() => Assert.Equal(1, _poll.Wait(LimitMilliseconds));

    /// <summary>Waits for a message and reads it.</summary>
    internal FaultMessage Next()
    {
        WaitForMessage();
        Assert.Equal(1, Userfaultfd.Read(_buffer));
        return FaultMessage.From(_buffer[0]);
    }

    /// <summary>Waits for a fault and says where it was, checking that it is one.</summary>
    internal FaultMessage NextFault(ulong address)
    {
        FaultMessage message = Next();
        Assert.Equal(UserfaultfdEventKind.PageFault, message.Kind);
        Assert.Equal(address, message.Address);
        return message;
    }

    /// <summary>Nothing can be read.</summary>
    internal void AssertQuiet()
    {
        Assert.Equal(0, _poll.Wait(0));
        Assert.Equal(0, Userfaultfd.Read(_buffer));
    }

    public void Dispose()
    {
        Userfaultfd.Dispose();
        _buffer.Dispose();
    }
}
