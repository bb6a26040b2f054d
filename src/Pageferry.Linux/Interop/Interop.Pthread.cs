using System.Runtime.InteropServices;

namespace Pageferry.Linux;

internal static partial class Interop
{
    /// <summary>Takes a lock that lies in memory: all zeros is one that nobody has.</summary>
    [LibraryImport(Libraries.C, EntryPoint = "pthread_mutex_lock")]
    internal static partial int PthreadMutexLock(nint mutex);

    [LibraryImport(Libraries.C, EntryPoint = "pthread_mutex_unlock")]
    internal static partial int PthreadMutexUnlock(nint mutex);
}
