using System.Runtime.InteropServices;

namespace Pageferry.Linux;

/// <summary>
/// A userfaultfd(2): accesses to the memory registered with it stop and are told to who reads it, until a page is placed.
/// </summary>
/// <remarks>
/// Closing it lets the threads that wait go on with pages of zeros. Calls on the fault path allocate nothing and answer with a
/// <see cref="UserfaultfdResult"/>; a count they give is the kernel's own signed field: bytes done, or a negative errno.
/// </remarks>
public sealed class Userfaultfd : IDisposable
{
    private const string PermissionAdvice =
        "Run as root, or grant one of: 'chmod 666 /dev/userfaultfd', 'sysctl -w vm.unprivileged_userfaultfd=1', CAP_SYS_PTRACE to the program.";

    private Userfaultfd(FileDescriptor descriptor) => Descriptor = descriptor;

    /// <summary>The userfaultfd, non-blocking: readable while a message waits.</summary>
    public FileDescriptor Descriptor { get; }

    /// <summary>Opens a userfaultfd that sees the kernel's faults too, by <c>/dev/userfaultfd</c> or else by the system call.</summary>
    /// <param name="features">What it has to be able to do; handed to <c>UFFDIO_API</c>.</param>
    /// <returns>The userfaultfd, which the caller disposes.</returns>
    /// <exception cref="LinuxException">EPERM or EACCES: not permitted. EINVAL: this kernel lacks a feature.</exception>
    public static Userfaultfd Open(UserfaultfdFeatures features)
    {
        var descriptor = new FileDescriptor(OpenAny());
        if (descriptor.IsInvalid)
        {
            throw LinuxException.FromLastError("open a userfaultfd that sees the kernel's own faults", PermissionAdvice);
        }

        var api = new Interop.uffdio_api { api = Interop.UFFD_API, features = (ulong)features };
        int result;

        // SAFETY: the kernel reads and fills a structure of the size that the request's number states.
        unsafe
        {
            result = Interop.Ioctl(descriptor.Number, Interop.UFFDIO_API, &api);
        }

        if (result != 0)
        {
            LinuxException failure = LinuxException.FromLastError($"agree with the kernel on the userfaultfd features {features}");
            descriptor.Dispose();
            throw failure;
        }

        return new Userfaultfd(descriptor);
    }

    /// <summary>Registers a range (<c>UFFDIO_REGISTER</c>).</summary>
    /// <param name="address">The first address; a page multiple.</param>
    /// <param name="length">Bytes; a page multiple.</param>
    /// <param name="modes">Which accesses fault.</param>
    /// <returns>The ioctls that work on the range: bit n stands for request number n.</returns>
    /// <exception cref="LinuxException">EINVAL: the memory can't fault so. EBUSY: another userfaultfd has it.</exception>
    public ulong Register(ulong address, ulong length, UserfaultfdModes modes)
    {
        var register = new Interop.uffdio_register { range = new() { start = address, len = length }, mode = (ulong)modes };

        // SAFETY: the kernel reads and fills a structure of the size that the request's number states.
        unsafe
        {
            return Interop.Ioctl(Descriptor.Number, Interop.UFFDIO_REGISTER, &register) == 0
                ? register.ioctls
                : throw LinuxException.FromLastError($"register {length} bytes at 0x{address:x} with a userfaultfd for {modes} faults");
        }
    }

    /// <summary>Ends the registration of a range (<c>UFFDIO_UNREGISTER</c>); threads that wait in it go on and fault as usual.</summary>
    /// <param name="address">The first address; a page multiple.</param>
    /// <param name="length">Bytes; a page multiple.</param>
    /// <exception cref="LinuxException">The range makes no sense.</exception>
    public void Unregister(ulong address, ulong length) => OnRange(Interop.UFFDIO_UNREGISTER, address, length, "unregister");

    /// <summary>Sends who waits for a range back to touch it again (<c>UFFDIO_WAKE</c>).</summary>
    /// <param name="address">The first address; a page multiple.</param>
    /// <param name="length">Bytes; a page multiple.</param>
    /// <exception cref="LinuxException">The range makes no sense.</exception>
    public void Wake(ulong address, ulong length) => OnRange(Interop.UFFDIO_WAKE, address, length, "wake the waiters of");

    /// <summary>Places pages with a content (<c>UFFDIO_COPY</c>).</summary>
    /// <param name="destination">The first address to place; a page multiple.</param>
    /// <param name="source">Where the content lies in this process.</param>
    /// <param name="length">Bytes; a page multiple.</param>
    /// <param name="flags">How.</param>
    /// <param name="done">Bytes placed, or a negative errno.</param>
    /// <returns>The outcome.</returns>
    public UserfaultfdResult Copy(ulong destination, ulong source, ulong length, UserfaultfdCopyFlags flags, out long done)
    {
        var copy = new Interop.uffdio_copy { dst = destination, src = source, len = length, mode = (ulong)flags };

        // SAFETY: the kernel reads and fills a structure of the size that the request's number states; it checks both addresses.
        unsafe
        {
            int result = Interop.Ioctl(Descriptor.Number, Interop.UFFDIO_COPY, &copy);
            done = copy.copy;
            return Outcome(result);
        }
    }

    /// <summary>Places pages of zeros (<c>UFFDIO_ZEROPAGE</c>).</summary>
    /// <param name="address">The first address to place; a page multiple.</param>
    /// <param name="length">Bytes; a page multiple.</param>
    /// <param name="flags">How.</param>
    /// <param name="done">Bytes placed, or a negative errno.</param>
    /// <returns>The outcome.</returns>
    public UserfaultfdResult ZeroPage(ulong address, ulong length, UserfaultfdCopyFlags flags, out long done) =>
        Place(Interop.UFFDIO_ZEROPAGE, address, length, flags, out done);

    /// <summary>Maps pages whose content is in the page cache (<c>UFFDIO_CONTINUE</c>).</summary>
    /// <param name="address">The first address to place; a page multiple.</param>
    /// <param name="length">Bytes; a page multiple.</param>
    /// <param name="flags">How.</param>
    /// <param name="done">Bytes placed, or a negative errno.</param>
    /// <returns>The outcome.</returns>
    public UserfaultfdResult Continue(ulong address, ulong length, UserfaultfdCopyFlags flags, out long done) =>
        Place(Interop.UFFDIO_CONTINUE, address, length, flags, out done);

    /// <summary>Reads the messages that wait, as many as fit, without waiting for one.</summary>
    /// <param name="buffer">Where to.</param>
    /// <returns>How many messages were read; 0 when none waits.</returns>
    /// <exception cref="LinuxException">The userfaultfd can't be read.</exception>
    public int Read(UserfaultfdEventBuffer buffer)
    {
        nint bytes;

        // SAFETY: the kernel writes at most the buffer's length to memory that the buffer owns.
        unsafe
        {
            bytes = Interop.Read(Descriptor.Number, (void*)buffer.Address, (nuint)buffer.Bytes);
        }

        if (bytes >= 0)
        {
            return (int)bytes / UserfaultfdEvent.Size;
        }

        // EAGAIN: what poll announced was answered by another thread meanwhile.
        return Marshal.GetLastPInvokeError() is (int)Errno.EAGAIN or (int)Errno.EINTR
            ? 0
            : throw LinuxException.FromLastError("read a userfaultfd");
    }

    /// <summary>Closes the userfaultfd: the threads that wait go on with pages of zeros.</summary>
    public void Dispose() => Descriptor.Dispose();

    private static int OpenAny()
    {
        int device = Interop.Open("/dev/userfaultfd", Interop.O_RDWR | Interop.O_CLOEXEC);
        if (device >= 0)
        {
            int fd = Interop.Ioctl(device, Interop.USERFAULTFD_IOC_NEW, (nint)(Interop.O_CLOEXEC | Interop.O_NONBLOCK));
            _ = Interop.Close(device);
            if (fd >= 0)
            {
                return fd;
            }
        }

        return (int)Interop.Syscall(Interop.SYS_userfaultfd, Interop.O_CLOEXEC | Interop.O_NONBLOCK);
    }

    private static UserfaultfdResult Outcome(int result) => result == 0
        ? UserfaultfdResult.Done
        : (Errno)Marshal.GetLastPInvokeError() switch
        {
            Errno.EEXIST => UserfaultfdResult.AlreadyPresent,
            Errno.EAGAIN => UserfaultfdResult.Retry,
            Errno.ENOENT => UserfaultfdResult.NotRegistered,
            Errno.EFAULT => UserfaultfdResult.BadSource,
            Errno.ESRCH => UserfaultfdResult.ProcessGone,
            Errno.ENOMEM => UserfaultfdResult.NoMemory,
            Errno.EINVAL => UserfaultfdResult.Invalid,
            _ => UserfaultfdResult.Other,
        };

    private UserfaultfdResult Place(nuint request, ulong address, ulong length, UserfaultfdCopyFlags flags, out long done)
    {
        var place = new Interop.uffdio_zeropage { range = new() { start = address, len = length }, mode = (ulong)flags };

        // SAFETY: the kernel reads and fills a structure of the size that the request's number states.
        unsafe
        {
            int result = Interop.Ioctl(Descriptor.Number, request, &place);
            done = place.zeropage;
            return Outcome(result);
        }
    }

    private void OnRange(nuint request, ulong address, ulong length, string operation)
    {
        var range = new Interop.uffdio_range { start = address, len = length };

        // SAFETY: the kernel reads a structure of the size that the request's number states.
        unsafe
        {
            if (Interop.Ioctl(Descriptor.Number, request, &range) == 0)
            {
                return;
            }
        }

        throw LinuxException.FromLastError($"{operation} {length} bytes at 0x{address:x} of a userfaultfd");
    }
}
