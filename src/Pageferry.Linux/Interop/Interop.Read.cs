using System.Runtime.InteropServices;

namespace Pageferry.Linux;

internal static partial class Interop
{
    [LibraryImport(Libraries.C, EntryPoint = "read", SetLastError = true)]
    internal static unsafe partial nint Read(int fd, void* buffer, nuint count);

    [LibraryImport(Libraries.C, EntryPoint = "write", SetLastError = true)]
    internal static unsafe partial nint Write(int fd, void* buffer, nuint count);
}
