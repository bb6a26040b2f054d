namespace Pageferry.Linux;

/// <summary>What a thread asks the kernel for itself.</summary>
public static class CurrentThread
{
    /// <summary>CPUs have numbers below this one, as in the C library's own mask.</summary>
    public const int MostCpus = 1024;

    /// <summary>Keeps the calling thread on one CPU (sched_setaffinity(2)).</summary>
    /// <param name="cpu">The CPU's number, from 0.</param>
    /// <exception cref="ArgumentOutOfRangeException">The number is not from 0 to 1023.</exception>
    /// <exception cref="LinuxException">EINVAL: there is no such CPU, or this process may not use it.</exception>
    public static void RunOn(int cpu)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(cpu);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(cpu, MostCpus);
        Span<byte> mask = stackalloc byte[MostCpus / 8];
        mask.Clear();
        mask[cpu / 8] = (byte)(1 << (cpu % 8));
        int result;

        // SAFETY: the kernel reads as many bytes as the mask has.
        unsafe
        {
            fixed (byte* first = mask)
            {
                result = Interop.SchedSetaffinity(0, (nuint)mask.Length, first);
            }
        }

        if (result != 0)
        {
            throw LinuxException.FromLastError($"run a thread on CPU {cpu}", "The CPUs of this process are in /proc/self/status, Cpus_allowed_list.");
        }
    }

    /// <summary>
    /// Asks for time slices of a length (sched_setattr(2), sched_runtime): a thread with shorter ones than others' runs sooner after it is woken, and as much
    /// in all. Older kernels than Linux 6.12 take no notice.
    /// </summary>
    /// <param name="slice">How long; the kernel takes 100 µs to 100 ms, and the nearest of these for others.</param>
    /// <returns>Whether the kernel took the call; false if this is no thread of the ordinary policy (SCHED_OTHER) or it is not allowed.</returns>
    public static bool TrySetSlice(TimeSpan slice)
    {
        const uint OrdinaryPolicy = 0;
        long bytes = System.Runtime.CompilerServices.Unsafe.SizeOf<Interop.sched_attr>();
        if (Interop.SchedGetattr(Interop.SYS_sched_getattr, 0, out Interop.sched_attr attributes, bytes, 0) != 0 || attributes.sched_policy != OrdinaryPolicy)
        {
            return false;
        }

        attributes.sched_runtime = (ulong)slice.TotalNanoseconds;
        return Interop.SchedSetattr(Interop.SYS_sched_setattr, 0, attributes, 0) == 0;
    }

    /// <summary>Sleeps (nanosleep(2)); less when a signal comes. The framework's own sleeps are whole milliseconds.</summary>
    /// <param name="duration">How long; not negative.</param>
    public static void Sleep(TimeSpan duration)
    {
        var pause = new Interop.timespec { tv_sec = duration.Ticks / TimeSpan.TicksPerSecond, tv_nsec = duration.Ticks % TimeSpan.TicksPerSecond * TimeSpan.NanosecondsPerTick };
        _ = Interop.Nanosleep(pause, 0);
    }
}
