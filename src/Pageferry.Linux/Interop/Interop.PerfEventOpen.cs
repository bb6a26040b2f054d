using System.Runtime.InteropServices;

namespace Pageferry.Linux;

internal static partial class Interop
{
    internal const uint PERF_TYPE_BREAKPOINT = 5;
    internal const uint PERF_ATTR_SIZE_VER1 = 72;
    internal const uint HW_BREAKPOINT_W = 2;
    internal const int PERF_FLAG_FD_CLOEXEC = 8;

    /// <summary>The number of the perf_event_open system call, which the C library has no function for.</summary>
    internal static int SYS_perf_event_open => PerfEventOpenNumber(RuntimeInformation.ProcessArchitecture);

    internal static int PerfEventOpenNumber(Architecture architecture) => architecture == Architecture.Arm64 ? 241 : 298;

    /// <summary>Counts events.</summary>
    /// <param name="number"><see cref="SYS_perf_event_open"/>.</param>
    /// <param name="attributes">A perf_event_attr.</param>
    /// <param name="thread">The thread's id; 0 for the calling one.</param>
    /// <param name="cpu">-1 for any.</param>
    /// <param name="group">-1 for none.</param>
    /// <param name="flags"><see cref="PERF_FLAG_FD_CLOEXEC"/>.</param>
    [LibraryImport(Libraries.C, EntryPoint = "syscall", SetLastError = true)]
    internal static unsafe partial long PerfEventOpen(long number, ulong* attributes, long thread, long cpu, long group, long flags);
}
