namespace Pageferry.Linux;

/// <summary>What a process asks the kernel for itself.</summary>
public static class CurrentProcess
{
    /// <summary>Begins a session of its own (setsid(2)): no terminal's signals reach the process any more.</summary>
    /// <exception cref="LinuxException">EPERM: the process leads a group already.</exception>
    public static void BeginSession()
    {
        if (Interop.Setsid() < 0)
        {
            throw LinuxException.FromLastError("begin a session", "Start it as a child of another process, as 'setsid' does.");
        }
    }

    /// <summary>Makes a descriptor one of <c>/dev/null</c> (dup2(2)): what is written to it goes nowhere, and what is read from it is at its end.</summary>
    /// <param name="number">The descriptor, 0 to 2 for the standard ones.</param>
    /// <exception cref="LinuxException">There is no <c>/dev/null</c>.</exception>
    public static void Discard(int number)
    {
        using var nothing = new FileDescriptor(Interop.Open("/dev/null", Interop.O_RDWR | Interop.O_CLOEXEC));
        if (nothing.IsInvalid || Interop.Dup2(nothing.Number, number) < 0)
        {
            throw LinuxException.FromLastError($"make descriptor {number} one of /dev/null");
        }
    }

    /// <summary>Whether hardware breakpoints don't work: in some virtual machines the kernel sets the debug registers, and nothing ever comes of it.</summary>
    /// <returns>True if one that was set was not hit; false if it was, or none may be set here (perf_event_open(2)), so that nobody waits for one.</returns>
    public static bool MissesBreakpoints()
    {
        const ulong ExcludeKernel = 1 << 5;
        const ulong ExcludeHypervisor = 1 << 6;
        ulong watched = 0;
        Span<ulong> attributes = stackalloc ulong[(int)Interop.PERF_ATTR_SIZE_VER1 / sizeof(ulong)];
        attributes.Clear();
        attributes[0] = Interop.PERF_TYPE_BREAKPOINT | ((ulong)Interop.PERF_ATTR_SIZE_VER1 << 32);
        attributes[5] = ExcludeKernel | ExcludeHypervisor;
        attributes[6] = (ulong)Interop.HW_BREAKPOINT_W << 32;
        attributes[8] = sizeof(ulong);

        // SAFETY: the kernel reads as many bytes as the attributes say that they have, and writes the count, of 8 bytes, where there is room for it. What is
        // watched is on this stack until the descriptor is closed.
        unsafe
        {
            attributes[7] = (ulong)&watched;
            ulong* hits = stackalloc ulong[1];
            fixed (ulong* first = attributes)
            {
                using var counter = new FileDescriptor((int)Interop.PerfEventOpen(Interop.SYS_perf_event_open, first, 0, -1, -1, Interop.PERF_FLAG_FD_CLOEXEC));
                if (counter.IsInvalid)
                {
                    return false;
                }

                Volatile.Write(ref watched, 1);
                return Interop.Read(counter.Number, hits, sizeof(ulong)) == sizeof(ulong) && *hits == 0;
            }
        }
    }
}
