using System.Runtime.InteropServices;

namespace Pageferry.Linux;

internal static partial class Interop
{
    internal const int SIGKILL = 9;
    internal const int SIGCONT = 18;
    internal const int SIGSTOP = 19;

    [LibraryImport(Libraries.C, EntryPoint = "kill", SetLastError = true)]
    internal static partial int Kill(int pid, int signal);
}
