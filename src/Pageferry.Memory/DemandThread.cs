using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>A thread that a guest waits for: it has little to do, and has to do it soon.</summary>
public static class DemandThread
{
    /// <summary>The shortest that the kernel takes.</summary>
    private static readonly TimeSpan s_slice = TimeSpan.FromMicroseconds(100);

    /// <summary>
    /// Has the calling thread run soon when it is woken, where other threads use the CPUs: it asks for short time slices (Linux 6.12; older kernels take no notice).
    /// Its share of the CPUs stays as it is, so no permission is needed.
    /// </summary>
    public static void Begin() => _ = CurrentThread.TrySetSlice(s_slice);
}
