namespace Pageferry.Criu;

/// <summary>What a message of CRIU's page-server protocol asks for or announces: the low 16 bits of its first word.</summary>
internal enum PageServerCommand
{
    /// <summary>Pages follow.</summary>
    Add = 1,

    /// <summary>Pages that the parent images have.</summary>
    Hole = 2,

    /// <summary>What follows is of another process; nobody answers.</summary>
    Open = 3,

    /// <summary>What follows is of another process; answered by a byte that says whether its parent images are there.</summary>
    OpenWithAnswer = 4,

    /// <summary>Whether there are parent images of a process; answered by an int32.</summary>
    Parent = 5,

    /// <summary>Pages as the flags say: they follow, the parent images have them, or they come later.</summary>
    AddWithFlags = 6,

    /// <summary>Asks for pages.</summary>
    Get = 7,

    /// <summary>The end; answered by an int32, 0 if all is well.</summary>
    Close = 0x1023,

    /// <summary>The end, on a connection that somebody else may hold open.</summary>
    ForceClose = 0x1024,

    /// <summary>The end of a restore that failed. No CRIU knows it: a dump fails on it, and lets its processes go on.</summary>
    GiveUp = 0xffff,
}
