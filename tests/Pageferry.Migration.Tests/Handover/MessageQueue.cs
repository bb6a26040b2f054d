namespace Pageferry.Migration.Tests;

/// <summary>Up to 8 control messages on their way, in order, each in two bytes: so that worlds are compared quickly.</summary>
internal readonly record struct MessageQueue(UInt128 Packed)
{
    private const int TypeBits = 8;
    private const int MessageBits = 16;
    private const int QueueBits = 128;

    internal bool IsEmpty => Packed == 0;

    /// <summary>The next message to be received, and how far the guest is if it says so.</summary>
    internal (MessageType Type, FoundGuest Found) First => ((MessageType)(byte)Packed, (FoundGuest)((ushort)Packed >> TypeBits));

    internal MessageQueue Rest => new(Packed >> MessageBits);

    /// <summary>For a reader.</summary>
    public override string ToString() => IsEmpty ? "nothing" : Rest.IsEmpty ? $"{First.Type}" : $"{First.Type}, {Rest}";

    internal MessageQueue With(MessageType type, FoundGuest found = default)
    {
        int used = (QueueBits - (int)UInt128.LeadingZeroCount(Packed) + MessageBits - 1) / MessageBits * MessageBits;
        Assert.True(used < QueueBits && (int)type < 1 << TypeBits);
        return new(Packed | ((UInt128)((int)type | ((int)found << TypeBits)) << used));
    }
}
