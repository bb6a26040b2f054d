using System.Runtime.InteropServices;

namespace Pageferry.Linux;

internal static partial class Interop
{
    /// <summary>The child has the same table of open files, not a copy.</summary>
    internal const int CLONE_FILES = 0x400;

    /// <summary><c>__WALL</c>: wait for a child whatever signal it ends with, none included.</summary>
    internal const int WALL = 0x40000000;

    /// <summary>Makes a copy of the process with one thread, which runs a function of the C library and ends with what that returns.</summary>
    /// <param name="function">The function; it takes one argument.</param>
    /// <param name="stack">The end of its stack.</param>
    /// <param name="flags">Flags; the lowest byte is the signal that its end sends, 0 for none.</param>
    /// <param name="argument">The argument.</param>
    [LibraryImport(Libraries.C, EntryPoint = "clone", SetLastError = true)]
    internal static partial int Clone(nint function, nint stack, int flags, nint argument);

    [LibraryImport(Libraries.C, EntryPoint = "waitpid", SetLastError = true)]
    internal static partial int Waitpid(int pid, out int status, int options);
}
