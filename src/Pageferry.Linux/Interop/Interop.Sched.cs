using System.Runtime.InteropServices;

namespace Pageferry.Linux;

internal static partial class Interop
{
    /// <summary>Restricts a thread to CPUs.</summary>
    /// <param name="thread">The thread's id; 0 for the calling one.</param>
    /// <param name="bytes">The mask's length.</param>
    /// <param name="mask">Bit n stands for CPU n.</param>
    [LibraryImport(Libraries.C, EntryPoint = "sched_setaffinity", SetLastError = true)]
    internal static unsafe partial int SchedSetaffinity(int thread, nuint bytes, byte* mask);

    /// <summary>Sleeps; less when a signal comes. The framework's own sleeps are whole milliseconds.</summary>
    /// <param name="duration">How long.</param>
    /// <param name="remaining">Where to leave what was left; 0 for nowhere.</param>
    /// <returns>0, or -1 when a signal came.</returns>
    [LibraryImport(Libraries.C, EntryPoint = "nanosleep")]
    internal static partial int Nanosleep(in timespec duration, nint remaining);

    /// <summary>struct timespec of 64-bit Linux.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct timespec
    {
        internal long tv_sec;
        internal long tv_nsec;
    }
}
