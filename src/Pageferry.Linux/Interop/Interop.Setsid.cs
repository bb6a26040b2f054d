using System.Runtime.InteropServices;

namespace Pageferry.Linux;

internal static partial class Interop
{
    [LibraryImport(Libraries.C, EntryPoint = "setsid", SetLastError = true)]
    internal static partial int Setsid();
}
