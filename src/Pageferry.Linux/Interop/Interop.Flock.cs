using System.Runtime.InteropServices;

namespace Pageferry.Linux;

internal static partial class Interop
{
    internal const int LOCK_EX = 2;
    internal const int LOCK_NB = 4;

    [LibraryImport(Libraries.C, EntryPoint = "flock", SetLastError = true)]
    internal static partial int Flock(int fd, int operation);
}
