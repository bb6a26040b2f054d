using System.Runtime.InteropServices;

namespace Pageferry.Linux;

internal static partial class Interop
{
    [LibraryImport(Libraries.C, EntryPoint = "dup2", SetLastError = true)]
    internal static partial int Dup2(int descriptor, int number);
}
