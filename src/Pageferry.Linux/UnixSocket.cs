using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;

namespace Pageferry.Linux;

/// <summary>A Unix socket that carries file descriptors beside bytes: unix(7). It blocks; <see cref="Poll"/> waits with a limit.</summary>
public sealed class UnixSocket : IDisposable
{
    /// <summary>The most descriptors that the kernel takes in one message (<c>SCM_MAX_FD</c>).</summary>
    public const int MaxDescriptors = 253;

    private static readonly int s_headerLength = Unsafe.SizeOf<Interop.cmsghdr>();

    private UnixSocket(int fd)
        : this(new FileDescriptor(fd))
    {
    }

    private UnixSocket(FileDescriptor descriptor) => Descriptor = descriptor;

    /// <summary>The socket: readable while there is something to receive or accept.</summary>
    public FileDescriptor Descriptor { get; }

    /// <summary>Makes a socket that waits for connections at a path. The umask and the directory say who may connect.</summary>
    /// <param name="path">Where the socket file is made; at most 107 bytes. It stays after the socket is closed.</param>
    /// <param name="type">How it carries bytes.</param>
    /// <returns>The socket, which the caller disposes.</returns>
    /// <exception cref="ArgumentException">The path is empty, too long or has a zero in it.</exception>
    /// <exception cref="LinuxException">EADDRINUSE: the file exists. EACCES, ENOENT: it can't be made there.</exception>
    public static UnixSocket Listen(string path, UnixSocketType type)
    {
        const int Backlog = 128;
        UnixSocket socket = Create(path, (int)type, out Interop.sockaddr_un address);

        // SAFETY: the kernel reads the structure whose length it is told.
        unsafe
        {
            if (Interop.Bind(socket.Descriptor.Number, &address, (uint)sizeof(Interop.sockaddr_un)) == 0
                && Interop.Listen(socket.Descriptor.Number, Backlog) == 0)
            {
                return socket;
            }
        }

        bool isUsed = Marshal.GetLastPInvokeError() == (int)Errno.EADDRINUSE;
        LinuxException failure = LinuxException.FromLastError($"listen at {path}", isUsed ? "Remove the file if nobody listens there." : null);
        socket.Dispose();
        throw failure;
    }

    /// <summary>Connects to a socket that listens at a path.</summary>
    /// <param name="path">The socket file; at most 107 bytes.</param>
    /// <param name="type">How it carries bytes: what the listener chose.</param>
    /// <returns>The socket, which the caller disposes.</returns>
    /// <exception cref="ArgumentException">The path is empty, too long or has a zero in it.</exception>
    /// <exception cref="LinuxException">ENOENT: no such file. ECONNREFUSED: nobody listens. EPROTOTYPE: another type. EACCES: not permitted.</exception>
    public static UnixSocket Connect(string path, UnixSocketType type)
    {
        UnixSocket socket = Create(path, (int)type, out Interop.sockaddr_un address);
        Connect(socket, in address, (uint)Unsafe.SizeOf<Interop.sockaddr_un>(), path);
        return socket;
    }

    /// <summary>Connects to a socket that takes datagrams, such as a service manager's (sd_notify(3)).</summary>
    /// <param name="address">The socket file, or behind an '@' a name of the abstract namespace; at most 107 bytes.</param>
    /// <returns>The socket, which the caller disposes. Each packet that is sent is a datagram.</returns>
    /// <exception cref="ArgumentException">The address is empty, too long or has a zero in it.</exception>
    /// <exception cref="LinuxException">As for <see cref="Connect(string, UnixSocketType)"/>.</exception>
    public static UnixSocket ConnectDatagrams(string address)
    {
        UnixSocket socket = Create(address, Interop.SOCK_DGRAM, out Interop.sockaddr_un place);
        uint length = (uint)Unsafe.SizeOf<Interop.sockaddr_un>();
        if (address[0] == '@')
        {
            // An abstract name begins with a zero and has no end but the address's: unix(7).
            length = (uint)(sizeof(ushort) + Encoding.UTF8.GetByteCount(address));

            // SAFETY: the array has a first byte.
            unsafe
            {
                place.sun_path[0] = 0;
            }
        }

        Connect(socket, in place, length, address);
        return socket;
    }

    /// <summary>Makes two sockets connected to each other (socketpair(2)).</summary>
    /// <param name="type">How they carry bytes.</param>
    /// <returns>The sockets, which the caller disposes.</returns>
    /// <exception cref="LinuxException">The process has too many open files (EMFILE).</exception>
    public static (UnixSocket First, UnixSocket Second) CreatePair(UnixSocketType type)
    {
        // SAFETY: the kernel writes two numbers to an array of two.
        unsafe
        {
            int* pair = stackalloc int[2];
            return Interop.Socketpair(Interop.AF_UNIX, (int)type | Interop.SOCK_CLOEXEC, 0, pair) == 0
                ? (new UnixSocket(pair[0]), new UnixSocket(pair[1]))
                : throw LinuxException.FromLastError("make a pair of Unix sockets");
        }
    }

    /// <summary>Takes over a socket that this process was started with, or that came from another one.</summary>
    /// <param name="descriptor">The socket; owned by the result.</param>
    /// <returns>The socket, which the caller disposes.</returns>
    public static UnixSocket FromDescriptor(FileDescriptor descriptor) => new(descriptor);

    /// <summary>Waits for a connection and takes it.</summary>
    /// <returns>The socket, which the caller disposes.</returns>
    /// <exception cref="LinuxException">EINVAL: the socket does not listen. EMFILE: too many open files.</exception>
    public UnixSocket Accept()
    {
        int fd;

        // SAFETY: the kernel is asked for no address, so it writes nothing.
        unsafe
        {
            do
            {
                fd = Interop.Accept4(Descriptor.Number, null, null, Interop.SOCK_CLOEXEC);
            }
            while (fd < 0 && IsInterrupted);
        }

        return fd >= 0 ? new UnixSocket(fd) : throw LinuxException.FromLastError($"accept a connection on Unix socket {Descriptor.Number}");
    }

    /// <summary>Sends bytes and, with the first of them, file descriptors (<c>SCM_RIGHTS</c>). Waits until all of it is sent.</summary>
    /// <param name="bytes">At least one byte, since descriptors don't travel alone.</param>
    /// <param name="descriptors">At most <see cref="MaxDescriptors"/>; the peer gets duplicates.</param>
    /// <exception cref="ArgumentOutOfRangeException">No bytes, or too many descriptors.</exception>
    /// <exception cref="LinuxException">EPIPE: the peer is gone. EMSGSIZE: a packet too long. EBADF: a descriptor is closed.</exception>
    public void Send(ReadOnlySpan<byte> bytes, params ReadOnlySpan<FileDescriptor> descriptors)
    {
        ArgumentOutOfRangeException.ThrowIfZero(bytes.Length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(descriptors.Length, MaxDescriptors);
        Span<byte> control = stackalloc byte[ControlLength(descriptors.Length)];
        WriteRights(control, descriptors);
        do
        {
            int sent = Send(bytes, control, flags: 0);
            bytes = sent >= 0 ? bytes[sent..] : throw CannotSend(bytes.Length);
            control = default;
        }
        while (!bytes.IsEmpty);
    }

    /// <summary>Sends a packet and file descriptors, unless the peer has so much unread that this would wait.</summary>
    /// <param name="packet">At least one byte.</param>
    /// <param name="descriptors">At most <see cref="MaxDescriptors"/>; the peer gets duplicates.</param>
    /// <returns>False if nothing was sent, since the peer doesn't read.</returns>
    /// <exception cref="ArgumentOutOfRangeException">No bytes, or too many descriptors.</exception>
    /// <exception cref="LinuxException">As for <see cref="Send(ReadOnlySpan{byte}, ReadOnlySpan{FileDescriptor})"/>.</exception>
    public bool TrySendPacket(ReadOnlySpan<byte> packet, params ReadOnlySpan<FileDescriptor> descriptors)
    {
        ArgumentOutOfRangeException.ThrowIfZero(packet.Length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(descriptors.Length, MaxDescriptors);
        Span<byte> control = stackalloc byte[ControlLength(descriptors.Length)];
        WriteRights(control, descriptors);
        return Send(packet, control, Interop.MSG_DONTWAIT) >= 0
            || (Marshal.GetLastPInvokeError() == (int)Errno.EAGAIN ? false : throw CannotSend(packet.Length));
    }

    /// <summary>Waits for bytes and the file descriptors that came with them (<c>SCM_RIGHTS</c>), which are closed on exec.</summary>
    /// <param name="bytes">Receives the bytes, of a stream as many as there are; at least 1 long.</param>
    /// <param name="descriptors">Receives the descriptors, which the caller disposes; empty where none is welcome.</param>
    /// <param name="descriptorCount">How many descriptors came.</param>
    /// <returns>How many bytes came; 0 when the peer closed its end.</returns>
    /// <exception cref="ArgumentOutOfRangeException">There is no room for a byte, or room for more descriptors than the kernel sends.</exception>
    /// <exception cref="LinuxException">
    /// EMSGSIZE: more descriptors came than there is room for, or a packet longer than the room; the message is lost and what came of its
    /// descriptors is closed. ECONNRESET: the peer closed with something unread.
    /// </exception>
    public int Receive(Span<byte> bytes, Span<FileDescriptor?> descriptors, out int descriptorCount) => Receive(bytes, descriptors, flags: 0, out descriptorCount);

    /// <summary>As <see cref="Receive(Span{byte}, Span{FileDescriptor?}, out int)"/>, and leaves all of it there to be received: the descriptors are duplicates.</summary>
    /// <param name="bytes">Receives the bytes, of a stream as many as there are; at least 1 long.</param>
    /// <param name="descriptors">Receives the descriptors, which the caller disposes.</param>
    /// <param name="descriptorCount">How many descriptors came; of a stream, also those that come with the bytes right behind.</param>
    /// <returns>How many bytes there are, up to those that the first descriptor came with; 0 when the peer closed its end.</returns>
    /// <exception cref="LinuxException">As for <see cref="Receive(Span{byte}, Span{FileDescriptor?}, out int)"/>.</exception>
    public int Peek(Span<byte> bytes, Span<FileDescriptor?> descriptors, out int descriptorCount) => Receive(bytes, descriptors, Interop.MSG_PEEK, out descriptorCount);

    /// <summary>Asks who is at the other end (<c>SO_PEERCRED</c>).</summary>
    /// <returns>The process that connected, listened or made the pair, as it was then.</returns>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public UnixPeer GetPeer()
    {
        Interop.ucred peer = default;
        uint length = (uint)Unsafe.SizeOf<Interop.ucred>();

        // SAFETY: the kernel writes at most the length it is told to a local variable of that length.
        unsafe
        {
            return Interop.Getsockopt(Descriptor.Number, Interop.SOL_SOCKET, Interop.SO_PEERCRED, &peer, &length) == 0
                ? new UnixPeer(peer.pid, peer.uid, peer.gid)
                : throw LinuxException.FromLastError($"ask who the peer of Unix socket {Descriptor.Number} is");
        }
    }

    /// <summary>Closes the socket; the peer reads the end.</summary>
    public void Dispose() => Descriptor.Dispose();

    private static bool IsInterrupted => Marshal.GetLastPInvokeError() == (int)Errno.EINTR;

    private static int ControlLength(int descriptorCount) => descriptorCount == 0 ? 0 : s_headerLength + (descriptorCount * sizeof(int));

    /// <summary>The descriptors' numbers in what the kernel wrote to the control buffer: one message, as no other kind was asked for.</summary>
    private static ReadOnlySpan<int> Rights(ReadOnlySpan<byte> control)
    {
        if (control.Length < s_headerLength)
        {
            return [];
        }

        var header = MemoryMarshal.Read<Interop.cmsghdr>(control);
        return header is { cmsg_level: Interop.SOL_SOCKET, cmsg_type: Interop.SCM_RIGHTS }
            ? MemoryMarshal.Cast<byte, int>(control[s_headerLength..(int)header.cmsg_len])
            : [];
    }

    private static void WriteRights(Span<byte> control, ReadOnlySpan<FileDescriptor> descriptors)
    {
        if (descriptors.IsEmpty)
        {
            return;
        }

        var header = new Interop.cmsghdr
        {
            cmsg_len = (nuint)control.Length,
            cmsg_level = Interop.SOL_SOCKET,
            cmsg_type = Interop.SCM_RIGHTS,
        };
        MemoryMarshal.Write(control, in header);
        Span<int> numbers = MemoryMarshal.Cast<byte, int>(control[s_headerLength..]);
        for (int i = 0; i < descriptors.Length; i++)
        {
            numbers[i] = descriptors[i].Number;
        }
    }

    private static void Connect(UnixSocket socket, in Interop.sockaddr_un address, uint length, string name)
    {
        int result;

        // SAFETY: the kernel reads of the structure, which is pinned, the length that it is told and that is no longer.
        unsafe
        {
            fixed (Interop.sockaddr_un* place = &address)
            {
                do
                {
                    result = Interop.Connect(socket.Descriptor.Number, place, length);
                }
                while (result != 0 && IsInterrupted);
            }
        }

        if (result != 0)
        {
            LinuxException failure = LinuxException.FromLastError($"connect to {name}");
            socket.Dispose();
            throw failure;
        }
    }

    private static UnixSocket Create(string path, int type, out Interop.sockaddr_un address)
    {
        byte[] name = Encoding.UTF8.GetBytes(path);
        if (name.Length is 0 or >= Interop.sockaddr_un.PathLength || name.Contains((byte)0))
        {
            throw new ArgumentException($"A Unix socket's path has 1 to {Interop.sockaddr_un.PathLength - 1} bytes and no zero in it: '{path}'.", nameof(path));
        }

        address = new Interop.sockaddr_un { sun_family = Interop.AF_UNIX };

        // SAFETY: the name was found shorter than the path.
        unsafe
        {
            for (int i = 0; i < name.Length; i++)
            {
                address.sun_path[i] = name[i];
            }
        }

        int fd = Interop.Socket(Interop.AF_UNIX, type | Interop.SOCK_CLOEXEC, 0);
        return fd >= 0 ? new UnixSocket(fd) : throw LinuxException.FromLastError($"make a Unix socket for {path}");
    }

    /// <returns>How many bytes were sent; -1 and the thread's last error if none were.</returns>
    private int Send(ReadOnlySpan<byte> bytes, ReadOnlySpan<byte> control, int flags)
    {
        nint sent;

        // SAFETY: both spans are pinned, and the structures, which are on the stack, carry their lengths.
        unsafe
        {
            fixed (byte* from = bytes)
            fixed (byte* controlFrom = control)
            {
                var vector = new Interop.iovec { iov_base = from, iov_len = (nuint)bytes.Length };
                var message = new Interop.msghdr
                {
                    msg_iov = &vector,
                    msg_iovlen = 1,
                    msg_control = controlFrom,
                    msg_controllen = (nuint)control.Length,
                };
                do
                {
                    sent = Interop.Sendmsg(Descriptor.Number, &message, Interop.MSG_NOSIGNAL | flags);
                }
                while (sent < 0 && IsInterrupted);
            }
        }

        return (int)sent;
    }

    private int Receive(Span<byte> bytes, Span<FileDescriptor?> descriptors, int flags, out int descriptorCount)
    {
        ArgumentOutOfRangeException.ThrowIfZero(bytes.Length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(descriptors.Length, MaxDescriptors);

        // Not CMSG_SPACE, whose padding has room for a descriptor more than was asked for.
        Span<byte> control = stackalloc byte[ControlLength(descriptors.Length)];
        int received = Receive(bytes, ref control, ref flags);
        descriptorCount = 0;
        foreach (int number in Rights(control))
        {
            descriptors[descriptorCount++] = new FileDescriptor(number);
        }

        if ((flags & (Interop.MSG_CTRUNC | Interop.MSG_TRUNC)) == 0)
        {
            return received;
        }

        foreach (ref FileDescriptor? descriptor in descriptors[..descriptorCount])
        {
            descriptor!.Dispose();
            descriptor = null;
        }

        descriptorCount = 0;
        throw new LinuxException(
            $"receive at most {bytes.Length} bytes and {descriptors.Length} file descriptors from Unix socket {Descriptor.Number}",
            Errno.EMSGSIZE,
            (flags & Interop.MSG_CTRUNC) != 0 ? "The peer sent more descriptors, or this process has too many open files." : "The peer sent more bytes.");
    }

    private LinuxException CannotSend(int length) => LinuxException.FromLastError($"send {length} bytes over Unix socket {Descriptor.Number}");

    /// <param name="bytes">Receives the bytes.</param>
    /// <param name="control">Receives the control messages, and is cut to them.</param>
    /// <param name="flags">How to receive; becomes what the kernel says of the message.</param>
    private int Receive(Span<byte> bytes, ref Span<byte> control, ref int flags)
    {
        nint received;
        nuint controlLength;

        // SAFETY: both spans are pinned, and the kernel writes no more than the lengths in the structures, which are on the stack.
        unsafe
        {
            fixed (byte* to = bytes)
            fixed (byte* controlTo = control)
            {
                var vector = new Interop.iovec { iov_base = to, iov_len = (nuint)bytes.Length };
                var message = new Interop.msghdr { msg_iov = &vector, msg_iovlen = 1 };
                do
                {
                    message.msg_control = controlTo;
                    message.msg_controllen = (nuint)control.Length;
                    received = Interop.Recvmsg(Descriptor.Number, &message, Interop.MSG_CMSG_CLOEXEC | flags);
                }
                while (received < 0 && IsInterrupted);

                flags = message.msg_flags;
                controlLength = message.msg_controllen;
            }
        }

        control = received >= 0
            ? control[..(int)controlLength]
            : throw LinuxException.FromLastError($"receive from Unix socket {Descriptor.Number}");
        return (int)received;
    }
}
