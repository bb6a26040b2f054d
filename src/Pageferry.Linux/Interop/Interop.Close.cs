using System.Runtime.InteropServices;

namespace Pageferry.Linux;

internal static partial class Interop
{
    internal const int F_GETFL = 3;
    internal const int F_SETFL = 4;
    internal const int F_DUPFD = 0;
    internal const int F_DUPFD_CLOEXEC = 1030;

    [LibraryImport(Libraries.C, EntryPoint = "close", SetLastError = true)]
    internal static partial int Close(int fd);

    [LibraryImport(Libraries.C, EntryPoint = "fcntl", SetLastError = true)]
    internal static partial int Fcntl(int fd, int command, int argument);
}
