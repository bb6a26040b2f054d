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

    /// <summary>Sleeps (nanosleep(2)); less when a signal comes. The framework's own sleeps are whole milliseconds.</summary>
    /// <param name="duration">How long; not negative.</param>
    public static void Sleep(TimeSpan duration)
    {
        var pause = new Interop.timespec { tv_sec = duration.Ticks / TimeSpan.TicksPerSecond, tv_nsec = duration.Ticks % TimeSpan.TicksPerSecond * TimeSpan.NanosecondsPerTick };
        _ = Interop.Nanosleep(pause, 0);
    }
}
