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

    /// <summary>Opens a userfaultfd by <c>/dev/userfaultfd</c> or else by the system call.</summary>
    /// <param name="features">What it has to be able to do; handed to <c>UFFDIO_API</c>.</param>
    /// <param name="userModeOnly">
    /// <c>UFFD_USER_MODE_ONLY</c>, which needs no permission: an access that the kernel makes, for a system call or for a vCPU,
    /// does not wait but fails with EFAULT.
    /// </param>
    /// <returns>The userfaultfd, which the caller disposes.</returns>
    /// <exception cref="LinuxException">EPERM or EACCES: not permitted. EINVAL: this kernel lacks a feature.</exception>
    public static Userfaultfd Open(UserfaultfdFeatures features, bool userModeOnly = false)
    {
        FileDescriptor descriptor = OpenAny(userModeOnly, out _);
        try
        {
            _ = Agree(descriptor, features);
            return new Userfaultfd(descriptor);
        }
        catch (LinuxException)
        {
            descriptor.Dispose();
            throw;
        }
    }

    /// <summary>Takes over a userfaultfd of another process's memory, received over a socket or in a fork message.</summary>
    /// <param name="descriptor">
    /// The userfaultfd, on which <c>UFFDIO_API</c> was done; owned by the result. It is made non-blocking, for every process that shares it.
    /// </param>
    /// <returns>The userfaultfd, which the caller disposes.</returns>
    /// <exception cref="LinuxException">EINVAL: the descriptor is no userfaultfd. The caller keeps it then.</exception>
    public static Userfaultfd FromDescriptor(FileDescriptor descriptor)
    {
        string? target = new FileInfo($"/proc/self/fd/{descriptor.Number}").LinkTarget;
        if (target != "anon_inode:[userfaultfd]")
        {
            throw new LinuxException($"use file descriptor {descriptor.Number} ({target ?? "closed"}) as a userfaultfd", Errno.EINVAL);
        }

        int flags = Interop.Fcntl(descriptor.Number, Interop.F_GETFL, 0);
        return flags >= 0 && Interop.Fcntl(descriptor.Number, Interop.F_SETFL, flags | Interop.O_NONBLOCK) == 0
            ? new Userfaultfd(descriptor)
            : throw LinuxException.FromLastError($"make userfaultfd {descriptor.Number} non-blocking");
    }

    /// <summary>Asks what userfaultfd can do here, for faults of the kernel too. Nothing stays open.</summary>
    /// <returns>What this process may ask <see cref="Open"/> for, or why it can't have any.</returns>
    public static UserfaultfdProbe Probe()
    {
        try
        {
            // One answer per descriptor: the kernel refuses a second UFFDIO_API.
            UserfaultfdFeatures features;
            bool isByDevice;
            using (FileDescriptor descriptor = OpenAny(userModeOnly: false, out isByDevice))
            {
                features = Agree(descriptor, UserfaultfdFeatures.None);
            }

            if (features.HasFlag(UserfaultfdFeatures.EventFork) && !IsGranted(UserfaultfdFeatures.EventFork))
            {
                features &= ~UserfaultfdFeatures.EventFork;
            }

            return new UserfaultfdProbe { Features = features, IsByDevice = isByDevice };
        }
        catch (LinuxException e)
        {
            return new UserfaultfdProbe { Failure = e };
        }
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

    /// <summary>Makes every later access to pages without content an error (<c>UFFDIO_POISON</c>).</summary>
    /// <remarks>
    /// The access is SIGBUS in user mode and EFAULT or EHWPOISON in the kernel; a guest gets a machine check. <see cref="Copy"/> and
    /// <see cref="MemoryAdvice.DontNeed"/> undo it.
    /// </remarks>
    /// <param name="address">The first address to poison; a page multiple.</param>
    /// <param name="length">Bytes; a page multiple.</param>
    /// <param name="flags"><see cref="UserfaultfdCopyFlags.DontWake"/> or none.</param>
    /// <param name="done">Bytes poisoned, or a negative errno.</param>
    /// <returns>The outcome.</returns>
    public UserfaultfdResult Poison(ulong address, ulong length, UserfaultfdCopyFlags flags, out long done) =>
        Place(Interop.UFFDIO_POISON, address, length, flags, out done);

    /// <summary>Moves anonymous pages to where content is missing, without a copy where the kernel can (<c>UFFDIO_MOVE</c>).</summary>
    /// <remarks>The source becomes a hole. Only the process whose memory it is may move.</remarks>
    /// <param name="destination">The first address to place; a page multiple in a registered range.</param>
    /// <param name="source">The first address to take pages from; a page multiple.</param>
    /// <param name="length">Bytes; a page multiple.</param>
    /// <param name="flags">How.</param>
    /// <param name="done">Bytes moved, or a negative errno.</param>
    /// <returns>The outcome; <see cref="UserfaultfdResult.NotRegistered"/> stands for a hole in the source too.</returns>
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

    /// <summary>Protects pages from writes, or ends that (<c>UFFDIO_WRITEPROTECT</c>). All of the range or nothing: there is no count.</summary>
    /// <param name="address">The first address; a page multiple in a range registered with <see cref="UserfaultfdModes.WriteProtect"/>.</param>
    /// <param name="length">Bytes; a page multiple.</param>
    /// <param name="flags">Whether to protect, and whether to wake who waits where not.</param>
    /// <returns>The outcome.</returns>
    public UserfaultfdResult WriteProtect(ulong address, ulong length, UserfaultfdWriteProtectFlags flags)
    {
        var protect = new Interop.uffdio_writeprotect { range = new() { start = address, len = length }, mode = (ulong)flags };

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

    /// <summary>Closes the userfaultfd: the threads that wait go on with pages of zeros.</summary>
    public void Dispose() => Descriptor.Dispose();

    /// <summary>Opens a userfaultfd that <c>UFFDIO_API</c> was not done on: it takes nothing else.</summary>
    internal static FileDescriptor OpenAny(bool userModeOnly, out bool isByDevice)
    {
        int flags = Interop.O_CLOEXEC | Interop.O_NONBLOCK | (userModeOnly ? Interop.UFFD_USER_MODE_ONLY : 0);
        int device = Interop.Open("/dev/userfaultfd", Interop.O_RDWR | Interop.O_CLOEXEC);
        if (device >= 0)
        {
            int made = Interop.Ioctl(device, Interop.USERFAULTFD_IOC_NEW, (nint)flags);
            _ = Interop.Close(device);
            if (made >= 0)
            {
                isByDevice = true;
                return new FileDescriptor(made);
            }
        }

        isByDevice = false;
        int fd = (int)Interop.Syscall(Interop.SYS_userfaultfd, flags);
        return (fd >= 0, userModeOnly) switch
        {
            (true, _) => new FileDescriptor(fd),
            (_, true) => throw LinuxException.FromLastError("open a userfaultfd for the accesses of user mode"),
            _ => throw LinuxException.FromLastError("open a userfaultfd that sees the kernel's own faults", PermissionAdvice),
        };
    }

    /// <summary>UFFDIO_API: every feature that the kernel has, whichever are asked for.</summary>
    internal static UserfaultfdFeatures Agree(FileDescriptor descriptor, UserfaultfdFeatures features)
    {
        var api = new Interop.uffdio_api { api = Interop.UFFD_API, features = (ulong)features };

        if (TryAgree(descriptor, ref api))
        {
            return (UserfaultfdFeatures)api.features;
        }

        bool isForkRefused = Marshal.GetLastPInvokeError() == (int)Errno.EPERM;
        throw LinuxException.FromLastError(
            $"agree with the kernel on the userfaultfd features {features}",
            isForkRefused ? $"{nameof(UserfaultfdFeatures.EventFork)} needs CAP_SYS_PTRACE." : null);
    }

    /// <summary>UFFDIO_API as it is.</summary>
    /// <param name="descriptor">The userfaultfd.</param>
    /// <param name="api">What is asked for; the kernel puts its answer there.</param>
    /// <returns>Whether the kernel agreed.</returns>
    internal static bool TryAgree(FileDescriptor descriptor, ref Interop.uffdio_api api)
    {
        // SAFETY: the kernel reads and fills a structure of the size that the request's number states, pinned for the call.
        unsafe
        {
            fixed (Interop.uffdio_api* asked = &api)
            {
                return Interop.Ioctl(descriptor.Number, Interop.UFFDIO_API, asked) == 0;
            }
        }
    }

    private static bool IsGranted(UserfaultfdFeatures features)
    {
        try
        {
            Open(features).Dispose();
            return true;
        }
        catch (LinuxException)
        {
            return false;
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
