namespace Pageferry.Linux;

/// <summary>Which accesses of a registered range fault: the <c>UFFDIO_REGISTER_MODE_</c> bits.</summary>
[Flags]
public enum UserfaultfdModes : ulong
{
    /// <summary>None; the kernel refuses it.</summary>
    None = 0,

    /// <summary><c>UFFDIO_REGISTER_MODE_MISSING</c>: accesses to pages without content.</summary>
    Missing = 1,

    /// <summary><c>UFFDIO_REGISTER_MODE_WP</c>: writes to protected pages.</summary>
    WriteProtect = 2,

    /// <summary><c>UFFDIO_REGISTER_MODE_MINOR</c>: accesses to pages with content in the page cache that aren't mapped.</summary>
    Minor = 4,
}
