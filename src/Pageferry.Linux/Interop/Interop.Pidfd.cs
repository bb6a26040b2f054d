using System.Runtime.InteropServices;

namespace Pageferry.Linux;

internal static partial class Interop
{
    /// <summary>The same numbers on every architecture. The C library has functions for them since glibc 2.36.</summary>
    internal const int SYS_pidfd_send_signal = 424;
    internal const int SYS_pidfd_open = 434;

    /// <summary>Opens a process.</summary>
    /// <param name="number"><see cref="SYS_pidfd_open"/>.</param>
    /// <param name="pid">The process's id.</param>
    /// <param name="flags">0.</param>
    [LibraryImport(Libraries.C, EntryPoint = "syscall", SetLastError = true)]
    internal static partial long PidfdOpen(long number, long pid, long flags);

    /// <summary>Sends a signal to a process.</summary>
    /// <param name="number"><see cref="SYS_pidfd_send_signal"/>.</param>
    /// <param name="pidfd">The process.</param>
    /// <param name="signal">The signal; 0 only asks whether it may be sent one.</param>
    /// <param name="info">0: as kill(2) has it.</param>
    /// <param name="flags">0.</param>
    [LibraryImport(Libraries.C, EntryPoint = "syscall", SetLastError = true)]
    internal static partial long PidfdSendSignal(long number, long pidfd, long signal, nint info, long flags);
}
