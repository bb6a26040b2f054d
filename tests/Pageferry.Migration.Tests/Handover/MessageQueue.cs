namespace Pageferry.Migration.Tests;

/// <summary>Up to 8 control messages on their way, in order, each in a byte: so that worlds are compared quickly.</summary>
internal readonly record struct MessageQueue(ulong Packed)
{
    private const int TypeBits = 6;

    internal bool IsEmpty => Packed == 0;

    /// <summary>The next message to be received, and how far the guest is if it says so.</summary>
    internal (MessageType Type, FoundGuest Found) First => ((MessageType)(Packed & ((1 << TypeBits) - 1)), (FoundGuest)((byte)Packed >> TypeBits));

    internal MessageQueue Rest => new(Packed >> 8);

    /// <summary>For a reader.</summary>
    public override string ToString() => IsEmpty ? "nothing" : Rest.IsEmpty ? $"{First.Type}" : $"{First.Type}, {Rest}";

    internal MessageQueue With(MessageType type, FoundGuest found = default)
    {
        int used = (64 - System.Numerics.BitOperations.LeadingZeroCount(Packed) + 7) / 8 * 8;
        Assert.True(used < 64 && (int)type < 1 << TypeBits);
        return new(Packed | ((ulong)((int)type | ((int)found << TypeBits)) << used));
    }
}
