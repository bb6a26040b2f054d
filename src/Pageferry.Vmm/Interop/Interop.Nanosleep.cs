using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

[assembly: DisableRuntimeMarshalling]
[assembly: DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]

namespace Pageferry.Vmm;

/// <summary>The C library's functions, by their C names.</summary>
internal static partial class Interop
{
    /// <summary>Sleeps; less when a signal comes. The framework's own sleeps are whole milliseconds.</summary>
    /// <param name="duration">How long.</param>
    /// <param name="remaining">Where to leave what was left; 0 for nowhere.</param>
    /// <returns>0, or -1 when a signal came.</returns>
    [LibraryImport("libc", EntryPoint = "nanosleep")]
    internal static partial int Nanosleep(in timespec duration, nint remaining);

    /// <summary>struct timespec of 64-bit Linux.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct timespec
    {
        internal long tv_sec;
        internal long tv_nsec;
    }
}
