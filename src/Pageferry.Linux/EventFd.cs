namespace Pageferry.Linux;

/// <summary>A counter that a thread can wait for with poll(2): eventfd(2), non-blocking.</summary>
public sealed class EventFd : IDisposable
{
    /// <summary>Makes a counter that is 0.</summary>
    /// <exception cref="LinuxException">The process has too many open files (EMFILE).</exception>
    public EventFd()
    {
        int fd = Interop.Eventfd(0, Interop.EFD_NONBLOCK | Interop.EFD_CLOEXEC);
        Descriptor = fd >= 0 ? new FileDescriptor(fd) : throw LinuxException.FromLastError("create an eventfd");
    }

    /// <summary>The eventfd: readable while the counter is above 0.</summary>
    public FileDescriptor Descriptor { get; }

    /// <summary>Adds 1 to the counter; who waits goes on.</summary>
    public void Signal()
    {
        ulong one = 1;

        // SAFETY: the kernel reads 8 bytes from a local variable.
        unsafe
        {
            // Fails only when the counter is at its maximum: then it is readable anyway.
            _ = Interop.Write(Descriptor.Number, &one, sizeof(ulong));
        }
    }

    /// <summary>Takes the counter's value and sets it to 0.</summary>
    /// <returns>The value; 0 when nobody signalled.</returns>
    public ulong Drain()
    {
        ulong value = 0;

        // SAFETY: the kernel writes 8 bytes to a local variable.
        unsafe
        {
            return Interop.Read(Descriptor.Number, &value, sizeof(ulong)) == sizeof(ulong) ? value : 0;
        }
    }

    /// <summary>Closes the eventfd.</summary>
    public void Dispose() => Descriptor.Dispose();
}
