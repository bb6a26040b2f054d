namespace Pageferry.Memory;

/// <summary>Why a userfault took as long as it took: what its page needed.</summary>
public enum FaultCause
{
    /// <summary>The page had to be asked for: a demand fetch.</summary>
    Demand,

    /// <summary>The page's content was arriving already.</summary>
    Arriving,

    /// <summary>The page reads as zero and had only to be placed.</summary>
    Zero,

    /// <summary>The page was whole: the kernel had unmapped it, or it was placed while the fault was reported.</summary>
    Present,
}
