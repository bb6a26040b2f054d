using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

[assembly: DisableRuntimeMarshalling]
[assembly: DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]

namespace Pageferry.Linux;

/// <summary>The C library's functions and the kernel's constants, by their C names.</summary>
internal static partial class Interop
{
    /// <summary>The libraries imported from.</summary>
    internal static class Libraries
    {
        internal const string C = "libc";
    }
}
