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
        FileDescriptor descriptor = OpenAny();
        try
        {
            _ = Agree(descriptor, features);
            return new Userfaultfd(descriptor);
        }
        catch
        {
            descriptor.Dispose();
            throw;
        }
    }

    /// <summary>Opens a userfaultfd that sees the faults of user space only (<c>UFFD_USER_MODE_ONLY</c>), which needs no permission.</summary>
    /// <remarks>A page that the kernel itself touches, KVM among it, is EFAULT there and not a message.</remarks>
    /// <param name="features">What it has to be able to do.</param>
    /// <returns>The userfaultfd, which the caller disposes.</returns>
    /// <exception cref="LinuxException">ENOSYS: the kernel was built without it. EINVAL: this kernel lacks a feature.</exception>
    public static Userfaultfd OpenUserModeOnly(UserfaultfdFeatures features)
    {
        var descriptor = new FileDescriptor(SystemCall(Interop.UFFD_USER_MODE_ONLY));
        try
        {
            if (descriptor.IsInvalid)
            {
                throw LinuxException.FromLastError("open a userfaultfd for user space's faults");
            }

            _ = Agree(descriptor, features);
            return new Userfaultfd(descriptor);
        }
        catch
        {
            descriptor.Dispose();
            throw;
        }
    }

    /// <summary>Takes over a userfaultfd that another process opened and handed over; it watches that process's memory.</summary>
    /// <param name="descriptor">The userfaultfd, its features agreed on; owned by the result.</param>
    /// <returns>The userfaultfd, which the caller disposes.</returns>
    public static Userfaultfd FromDescriptor(FileDescriptor descriptor) => new(descriptor);

    /// <summary>What the kernel's userfaultfd can do here.</summary>
    /// <returns>All features that the kernel offers, those unknown here among them.</returns>
    /// <exception cref="LinuxException">EPERM or EACCES: not permitted; the message says what grants it. ENOSYS: the kernel was built without it.</exception>
    public static UserfaultfdFeatures Probe()
    {
        using FileDescriptor descriptor = OpenAny();
        return Agree(descriptor, UserfaultfdFeatures.None);
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

    /// <summary>Moves pages of private anonymous memory without a copy (<c>UFFDIO_MOVE</c>, Linux 6.8). Both ranges are this process's.</summary>
    /// <param name="destination">The first address to place; a page multiple.</param>
    /// <param name="source">The first address to move from, which has no content afterwards; a page multiple.</param>
    /// <param name="length">Bytes; a page multiple.</param>
    /// <param name="flags">How.</param>
    /// <param name="done">Bytes moved, or a negative errno.</param>
    /// <returns>The outcome; NotRegistered also when the source has no content, Busy when it is shared or pinned.</returns>
    public UserfaultfdResult Move(ulong destination, ulong source, ulong length, UserfaultfdMoveFlags flags, out long done)
    {
        var move = new Interop.uffdio_copy { dst = destination, src = source, len = length, mode = (ulong)flags };

        // SAFETY: the kernel reads and fills a structure of the size that the request's number states; it checks both addresses.
        unsafe
        {
            int result = Interop.Ioctl(Descriptor.Number, Interop.UFFDIO_MOVE, &move);
            done = move.copy;
            return Outcome(result);
        }
    }

    /// <summary>Makes pages whose content is lost fail when touched (<c>UFFDIO_POISON</c>, Linux 6.6): SIGBUS, EFAULT in the kernel.</summary>
    /// <param name="address">The first address to poison; a page multiple.</param>
    /// <param name="length">Bytes; a page multiple.</param>
    /// <param name="flags">How.</param>
    /// <param name="done">Bytes poisoned, or a negative errno.</param>
    /// <returns>The outcome.</returns>
    public UserfaultfdResult Poison(ulong address, ulong length, UserfaultfdCopyFlags flags, out long done) =>
        Place(Interop.UFFDIO_POISON, address, length, flags, out done);

    /// <summary>Protects pages against writes, or lets writes through and wakes who waits (<c>UFFDIO_WRITEPROTECT</c>).</summary>
    /// <param name="address">The first address; a page multiple, registered for write-protect faults.</param>
    /// <param name="length">Bytes; a page multiple.</param>
    /// <param name="isProtected">Whether a write is a fault from now on.</param>
    /// <returns>The outcome; Retry while an event is unread.</returns>
    public UserfaultfdResult WriteProtect(ulong address, ulong length, bool isProtected)
    {
        var protect = new Interop.uffdio_writeprotect
        {
            range = new() { start = address, len = length },
            mode = isProtected ? Interop.UFFDIO_WRITEPROTECT_MODE_WP : 0,
        };

        // SAFETY: the kernel reads a structure of the size that the request's number states.
        unsafe
        {
            return Outcome(Interop.Ioctl(Descriptor.Number, Interop.UFFDIO_WRITEPROTECT, &protect));
        }
    }

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

    /// <summary><c>UFFDIO_API</c> once more, for who wants to know that the kernel refuses it.</summary>
    internal UserfaultfdFeatures Agree(UserfaultfdFeatures features) => Agree(Descriptor, features);

    /// <summary>Closes the userfaultfd: the threads that wait go on with pages of zeros.</summary>
    public void Dispose() => Descriptor.Dispose();

    private static FileDescriptor OpenAny()
    {
        int device = Interop.Open("/dev/userfaultfd", Interop.O_RDWR | Interop.O_CLOEXEC);
        int fd = device >= 0 ? Interop.Ioctl(device, Interop.USERFAULTFD_IOC_NEW, (nint)(Interop.O_CLOEXEC | Interop.O_NONBLOCK)) : -1;
        if (device >= 0)
        {
            _ = Interop.Close(device);
        }

        fd = fd >= 0 ? fd : SystemCall(flags: 0);
        return fd >= 0
            ? new FileDescriptor(fd)
            : throw LinuxException.FromLastError("open a userfaultfd that sees the kernel's own faults", PermissionAdvice);
    }

    private static int SystemCall(int flags) =>
        (int)Interop.Syscall(Interop.SYS_userfaultfd, Interop.O_CLOEXEC | Interop.O_NONBLOCK | flags);

    /// <summary><c>UFFDIO_API</c>.</summary>
    /// <returns>All features that the kernel offers.</returns>
    private static UserfaultfdFeatures Agree(FileDescriptor descriptor, UserfaultfdFeatures features)
    {
        var api = new Interop.uffdio_api { api = Interop.UFFD_API, features = (ulong)features };

        // SAFETY: the kernel reads and fills a structure of the size that the request's number states.
        unsafe
        {
            return Interop.Ioctl(descriptor.Number, Interop.UFFDIO_API, &api) == 0
                ? (UserfaultfdFeatures)api.features
                : throw LinuxException.FromLastError($"agree with the kernel on the userfaultfd features {features}");
        }
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
            Errno.EBUSY => UserfaultfdResult.Busy,
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
