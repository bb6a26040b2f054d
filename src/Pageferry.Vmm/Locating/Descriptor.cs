namespace Pageferry.Vmm;

/// <summary>A descriptor of the GDT or LDT, or a gate of the IDT.</summary>
/// <param name="Low">Its first 8 bytes.</param>
/// <param name="High">Its second, where it has them.</param>
internal readonly record struct Descriptor(ulong Low, ulong High)
{
    internal const int TssTypes = 0b1_1101;
    internal const int TssType = 0b0_0001;
    internal const int CallGate16 = 4;
    internal const int TaskGate = 5;
    internal const int CallGate = 12;

    private const int Conforming = 0b1_1100;

    /// <summary>The type, with the bit that tells segments from the system's descriptors.</summary>
    internal int Type => (int)(Low >> 40 & 0x1F);

    /// <summary>A TSS, an LDT or a gate.</summary>
    internal bool IsSystem => (Type & 0x10) == 0;

    /// <summary>A TSS of any size, busy or not.</summary>
    internal bool IsTss => (Type & TssTypes & ~8) == TssType && IsSystem;

    /// <summary>A TSS, an LDT or a gate, in which nothing is noted; or a segment that was loaded before.</summary>
    internal bool IsNotedAsAccessed => IsSystem || (Type & 1) != 0;

    /// <summary>The least privilege that may use it, or that code gets by it.</summary>
    internal int Dpl => (int)(Low >> 45 & 3);

    /// <summary>Code that runs with its caller's privilege.</summary>
    internal bool IsConforming => (Type & Conforming) == Conforming;

    /// <summary>Where a segment or a TSS begins.</summary>
    internal ulong Base => (Low >> 16 & 0xFF_FFFF) | (Low >> 32 & 0xFF00_0000) | (High << 32);

    /// <summary>Of a gate, the code or task that it leads to.</summary>
    internal ulong Target => Low >> 16 & ushort.MaxValue;

    /// <summary>Of a call gate, how many parameters it copies from one stack to the other.</summary>
    internal int Parameters => (int)(Low >> 32 & 0x1F);

    /// <summary>Of a gate of the IDT in long mode, the number of the stack that it changes to; 0 for none.</summary>
    internal int InterruptStack => (int)(Low >> 32 & 7);

    /// <summary>A gate of 16-bit code.</summary>
    internal bool IsGate16 => (Type & 8) == 0;
}
