namespace Pageferry.Vmm;

/// <summary>What an instruction does with a page.</summary>
[Flags]
internal enum FaultAccess
{
    /// <summary>Nothing.</summary>
    None = 0,

    /// <summary>It reads.</summary>
    Read = 1,

    /// <summary>It writes, or the processor notes there that a page was accessed.</summary>
    Write = 2,

    /// <summary>It is fetched from there.</summary>
    Execute = 4,
}
