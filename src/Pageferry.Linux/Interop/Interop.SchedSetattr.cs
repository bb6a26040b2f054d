using System.Runtime.InteropServices;

namespace Pageferry.Linux;

internal static partial class Interop
{
    /// <summary>The numbers of system calls that the C library has no functions for before glibc 2.41.</summary>
    internal static int SYS_sched_setattr => SchedSetattrNumber(RuntimeInformation.ProcessArchitecture);

    internal static int SYS_sched_getattr => SchedGetattrNumber(RuntimeInformation.ProcessArchitecture);

    internal static int SchedSetattrNumber(Architecture architecture) => architecture == Architecture.Arm64 ? 274 : 314;

    internal static int SchedGetattrNumber(Architecture architecture) => architecture == Architecture.Arm64 ? 275 : 315;

    /// <summary>Changes how a thread is scheduled.</summary>
    /// <param name="number"><see cref="SYS_sched_setattr"/>.</param>
    /// <param name="thread">The thread's id; 0 for the calling one.</param>
    /// <param name="attributes">How.</param>
    /// <param name="flags">0.</param>
    [LibraryImport(Libraries.C, EntryPoint = "syscall", SetLastError = true)]
    internal static partial long SchedSetattr(long number, long thread, in sched_attr attributes, long flags);

    /// <summary>Asks how a thread is scheduled.</summary>
    /// <param name="number"><see cref="SYS_sched_getattr"/>.</param>
    /// <param name="thread">The thread's id; 0 for the calling one.</param>
    /// <param name="attributes">How.</param>
    /// <param name="bytes">The structure's size.</param>
    /// <param name="flags">0.</param>
    [LibraryImport(Libraries.C, EntryPoint = "syscall", SetLastError = true)]
    internal static partial long SchedGetattr(long number, long thread, out sched_attr attributes, long bytes, long flags);

    [StructLayout(LayoutKind.Sequential)]
    internal struct sched_attr
    {
        internal uint size;
        internal uint sched_policy;
        internal ulong sched_flags;
        internal int sched_nice;
        internal uint sched_priority;

        /// <summary>Nanoseconds; of an ordinary thread (SCHED_OTHER) its time slice, since Linux 6.12.</summary>
        internal ulong sched_runtime;
        internal ulong sched_deadline;
        internal ulong sched_period;
        internal uint sched_util_min;
        internal uint sched_util_max;
    }
}
