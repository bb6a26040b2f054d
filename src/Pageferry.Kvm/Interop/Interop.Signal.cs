using System.Runtime.InteropServices;

namespace Pageferry.Kvm;

internal static partial class Interop
{
    internal const int SIG_BLOCK = 0;

    /// <summary>sizeof(sigset_t) in the C library; the kernel uses its first 8 bytes.</summary>
    internal const int SigsetWords = 128 / sizeof(ulong);

    [LibraryImport("libc", EntryPoint = "tgkill", SetLastError = true)]
    internal static partial int Tgkill(int process, int thread, int signal);

    [LibraryImport("libc", EntryPoint = "gettid")]
    internal static partial int Gettid();

    /// <summary>Returns the errno; does not set it.</summary>
    [LibraryImport("libc", EntryPoint = "pthread_sigmask")]
    internal static unsafe partial int PthreadSigmask(int how, ulong* set, ulong* old);

    [LibraryImport("libc", EntryPoint = "sigtimedwait", SetLastError = true)]
    internal static unsafe partial int Sigtimedwait(ulong* set, void* information, long* timeout);
}
