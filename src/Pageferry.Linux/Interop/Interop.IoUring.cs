using System.Runtime.InteropServices;

namespace Pageferry.Linux;

internal static partial class Interop
{
    /// <summary>The same numbers on every architecture. The C library has no functions for them.</summary>
    internal const int SYS_io_uring_setup = 425;
    internal const int SYS_io_uring_register = 427;

    internal const int IORING_REGISTER_BUFFERS = 0;
    internal const int IORING_UNREGISTER_BUFFERS = 1;

    [LibraryImport(Libraries.C, EntryPoint = "syscall", SetLastError = true)]
    internal static unsafe partial long IoUringSetup(long number, long entries, io_uring_params* parameters);

    [LibraryImport(Libraries.C, EntryPoint = "syscall", SetLastError = true)]
    internal static unsafe partial long IoUringRegister(long number, long fd, long operation, void* argument, long count);

    /// <summary>The first fields; what is left stays 0.</summary>
    [StructLayout(LayoutKind.Sequential, Size = 120)]
    internal struct io_uring_params
    {
        internal uint sq_entries;
        internal uint cq_entries;
        internal uint flags;
        internal uint sq_thread_cpu;
        internal uint sq_thread_idle;
        internal uint features;
        internal uint wq_fd;
    }
}
