using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>A thread that nobody waits for: it moves pages while a guest runs that waits for others.</summary>
public static class BackgroundThread
{
    /// <summary>
    /// The scheduler runs first whose slice is to end first. What is left of an ordinary slice, 3 ms, often ends before a <see cref="DemandThread"/>'s that has just been woken, and who
    /// is run for it goes on until the next tick; what is left of one this long rarely does.
    /// </summary>
    private static readonly TimeSpan s_slice = TimeSpan.FromMilliseconds(20);

    /// <summary>
    /// Has the calling thread run after those that are woken for a guest: it asks for long time slices (Linux 6.12; older kernels take no notice). Its share of
    /// the CPUs stays as it is.
    /// </summary>
    public static void Begin() => _ = CurrentThread.TrySetSlice(s_slice);
}
