namespace Pageferry.Vmm;

/// <summary>
/// What the built-in guests keep in each page, so that a lost, stale, torn or foreign page can't go unseen: at its beginning and near its end the number of
/// the pass that wrote it, in its last word a hash of its number and the boot seed. Both guests and both hosts use the same.
/// </summary>
internal static class GuestWords
{
    /// <summary>Where the pass's number lies in a page.</summary>
    internal const int StampOffset = 0;

    /// <summary>Where the pass's number lies once more: a page of which one part is older than the other has two different ones.</summary>
    internal const int EndStampOffset = 4080;

    /// <summary>Where the hash lies in a page: the last word.</summary>
    internal const int HashOffset = 4088;

    internal const ulong Multiplier1 = 0x9E37_79B9_7F4A_7C15;
    internal const ulong Multiplier2 = 0xBF58_476D_1CE4_E5B9;
    internal const int Shift = 29;

    /// <summary>The multiplier and increment of the pseudo-random order: a full period over every power of two.</summary>
    internal const uint OrderMultiplier = 1_664_525;
    internal const uint OrderIncrement = 1_013_904_223;

    /// <summary>The hash of a page.</summary>
    /// <param name="page">Its GFN.</param>
    /// <param name="seed">The boot seed.</param>
    internal static ulong Hash(ulong page, ulong seed)
    {
        ulong hash = (page + seed) * Multiplier1;
        hash ^= hash >> Shift;
        return hash * Multiplier2;
    }

    /// <summary>Whether `random` writes a page in a pass: every page in the first, every other one later.</summary>
    /// <param name="page">The page's number within its slice.</param>
    /// <param name="pass">The pass, from 1.</param>
    internal static bool Writes(ulong page, ulong pass) => pass == 1 || ((page ^ pass) & 1) == 0;

    /// <summary>The stamp that `random` finds in a page before its turn in a pass.</summary>
    /// <param name="page">The page's number within its slice.</param>
    /// <param name="pass">The pass, from 2.</param>
    internal static ulong Expected(ulong page, ulong pass) => pass == 2 || ((page ^ (pass - 1)) & 1) == 0 ? pass - 1 : pass - 2;
}
