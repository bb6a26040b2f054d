namespace Pageferry.Linux.Tests;

/// <summary>A message of a userfaultfd, copied out of its buffer.</summary>
internal sealed record FaultMessage
{
    internal required UserfaultfdEventKind Kind { get; init; }

    internal required ulong Address { get; init; }

    internal required bool IsWrite { get; init; }

    internal required bool IsWriteProtect { get; init; }

    internal required bool IsMinor { get; init; }

    internal required uint ThreadId { get; init; }

    internal required int ForkDescriptor { get; init; }

    internal required (ulong From, ulong To, ulong Length) Remap { get; init; }

    internal required (ulong Start, ulong End) Range { get; init; }

    internal static FaultMessage From(UserfaultfdEvent message) => new()
    {
        Kind = message.Kind,
        Address = message.Address,
        IsWrite = message.IsWrite,
        IsWriteProtect = message.IsWriteProtect,
        IsMinor = message.IsMinor,
        ThreadId = message.ThreadId,
        ForkDescriptor = message.ForkDescriptor,
        Remap = (message.RemapFrom, message.RemapTo, message.RemapLength),
        Range = (message.Start, message.End),
    };
}
