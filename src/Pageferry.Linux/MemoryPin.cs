namespace Pageferry.Linux;

/// <summary>Memory whose pages the kernel holds where they are, for reads and writes of its own (a fixed buffer of an io_uring).</summary>
internal sealed class MemoryPin : IDisposable
{
    private readonly FileDescriptor _ring;

    private MemoryPin(FileDescriptor ring) => _ring = ring;

    /// <summary>Pins memory; pages that are missing are touched.</summary>
    /// <param name="address">The first address.</param>
    /// <param name="length">Bytes.</param>
    /// <returns>What holds the pages, which the caller disposes.</returns>
    /// <exception cref="LinuxException">EPERM: io_uring is not permitted. ENOSYS: this kernel has none. ENOMEM: more than RLIMIT_MEMLOCK.</exception>
    internal static MemoryPin Pin(ulong address, ulong length)
    {
        FileDescriptor? ring = null;

        // SAFETY: the kernel reads and fills structures of the size that it knows, which live during the calls; it checks the address itself.
        unsafe
        {
            Interop.io_uring_params parameters = default;
            long fd = Interop.IoUringSetup(Interop.SYS_io_uring_setup, 1, &parameters);
            if (fd >= 0)
            {
                ring = new FileDescriptor((int)fd);
                var buffer = new Interop.iovec { iov_base = (void*)address, iov_len = (nuint)length };
                if (Interop.IoUringRegister(Interop.SYS_io_uring_register, fd, Interop.IORING_REGISTER_BUFFERS, &buffer, 1) == 0)
                {
                    return new MemoryPin(ring);
                }
            }
        }

        var refusal = LinuxException.FromLastError($"pin {length} bytes at 0x{address:x} for an io_uring");
        ring?.Dispose();
        throw refusal;
    }

    /// <summary>Lets the pages go.</summary>
    public void Dispose()
    {
        // Closing alone lets them go some time later.
        // SAFETY: there is no argument.
        unsafe
        {
            _ = Interop.IoUringRegister(Interop.SYS_io_uring_register, _ring.Number, Interop.IORING_UNREGISTER_BUFFERS, null, 0);
        }

        _ring.Dispose();
    }
}
