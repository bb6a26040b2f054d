namespace Pageferry.Cli;

/// <summary>What a holder is asked.</summary>
internal enum HoldVerb : byte
{
    /// <summary>Keeps a blob and descriptors under a name that nothing is kept under, and has them be this connection's.</summary>
    Put = 1,

    /// <summary>Hands them out, and has them be this connection's.</summary>
    Take = 2,

    /// <summary>Moves them to a later stage.</summary>
    Advance = 3,

    /// <summary>Closes and forgets them.</summary>
    Drop = 4,
}
