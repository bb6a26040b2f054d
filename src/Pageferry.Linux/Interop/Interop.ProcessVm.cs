using System.Runtime.InteropServices;

namespace Pageferry.Linux;

internal static unsafe partial class Interop
{
    [LibraryImport(Libraries.C, EntryPoint = "process_vm_readv", SetLastError = true)]
    internal static partial nint ProcessVmReadv(int pid, iovec* local, nuint localCount, iovec* remote, nuint remoteCount, nuint flags);

    [LibraryImport(Libraries.C, EntryPoint = "process_vm_writev", SetLastError = true)]
    internal static partial nint ProcessVmWritev(int pid, iovec* local, nuint localCount, iovec* remote, nuint remoteCount, nuint flags);
}
