using System.Runtime.InteropServices;
using System.Text;

namespace Pageferry.Linux;

/// <summary>A Unix stream socket over which file descriptors are handed from process to process: unix(7), <c>SCM_RIGHTS</c>.</summary>
public sealed class UnixSocket : IDisposable
{
    /// <summary>The most descriptors that one message carries here; the kernel's own limit is 253.</summary>
    public const int MaxDescriptors = 16;

    private const int ControlHeaderBytes = 16;
    private const int ControlBytes = ControlHeaderBytes + (MaxDescriptors * sizeof(int));

    /// <summary>Takes over a socket.</summary>
    /// <param name="descriptor">A Unix stream socket; owned by the result.</param>
    public UnixSocket(FileDescriptor descriptor) => Descriptor = descriptor;

    /// <summary>The socket.</summary>
    public FileDescriptor Descriptor { get; }

    /// <summary>Makes two sockets that are connected with each other (socketpair(2)).</summary>
    /// <returns>Both, which the caller disposes.</returns>
    /// <exception cref="LinuxException">The process has too many open files (EMFILE).</exception>
    public static (UnixSocket First, UnixSocket Second) CreatePair()
    {
        // SAFETY: the kernel writes two descriptors to a local array of two.
        unsafe
        {
            int* pair = stackalloc int[2];
            return Interop.Socketpair(Interop.AF_UNIX, Interop.SOCK_STREAM | Interop.SOCK_CLOEXEC, 0, pair) == 0
                ? (new UnixSocket(new FileDescriptor(pair[0])), new UnixSocket(new FileDescriptor(pair[1])))
                : throw LinuxException.FromLastError("create a pair of Unix sockets");
        }
    }

    /// <summary>Listens at a path that nobody has taken.</summary>
    /// <param name="path">The path; up to 107 bytes. The file stays when the socket is disposed.</param>
    /// <returns>The listening socket, which the caller disposes.</returns>
    /// <exception cref="LinuxException">EADDRINUSE: the path is taken.</exception>
    /// <exception cref="ArgumentException">The path is too long for the kernel.</exception>
    public static UnixSocket Listen(string path)
    {
        const int Backlog = 8;
        UnixSocket socket = Create();
        Interop.sockaddr_un address = AddressOf(path);

        // SAFETY: the kernel reads an address of the length stated.
        unsafe
        {
            if (Interop.Bind(socket.Descriptor.Number, &address, (uint)sizeof(Interop.sockaddr_un)) == 0
                && Interop.Listen(socket.Descriptor.Number, Backlog) == 0)
            {
                return socket;
            }
        }

        LinuxException failure = LinuxException.FromLastError($"listen on Unix socket {path}");
        socket.Dispose();
        throw failure;
    }

    /// <summary>Connects to a path where a process listens.</summary>
    /// <param name="path">The path; up to 107 bytes.</param>
    /// <returns>The socket, which the caller disposes.</returns>
    /// <exception cref="LinuxException">ENOENT: there is no such file. ECONNREFUSED: nobody listens there.</exception>
    /// <exception cref="ArgumentException">The path is too long for the kernel.</exception>
    public static UnixSocket Connect(string path)
    {
        UnixSocket socket = Create();
        Interop.sockaddr_un address = AddressOf(path);

        // SAFETY: the kernel reads an address of the length stated.
        unsafe
        {
            if (Interop.Connect(socket.Descriptor.Number, &address, (uint)sizeof(Interop.sockaddr_un)) == 0)
            {
                return socket;
            }
        }

        LinuxException failure = LinuxException.FromLastError($"connect to Unix socket {path}");
        socket.Dispose();
        throw failure;
    }

    /// <summary>Waits for somebody to connect to a listening socket.</summary>
    /// <returns>The connection, which the caller disposes.</returns>
    /// <exception cref="LinuxException">EINVAL: the socket does not listen.</exception>
    public UnixSocket Accept()
    {
        // SAFETY: no address is asked for.
        unsafe
        {
            int fd = Interop.Accept4(Descriptor.Number, null, null, Interop.SOCK_CLOEXEC);
            return fd >= 0 ? new UnixSocket(new FileDescriptor(fd)) : throw LinuxException.FromLastError("accept a connection on a Unix socket");
        }
    }

    /// <summary>Who is at the other end (<c>SO_PEERCRED</c>).</summary>
    /// <returns>The credentials that the kernel noted.</returns>
    /// <exception cref="LinuxException">The socket is not connected.</exception>
    public PeerCredentials GetPeerCredentials()
    {
        Interop.ucred credentials;

        // SAFETY: the kernel writes at most the length stated, which is the structure's.
        unsafe
        {
            uint length = (uint)sizeof(Interop.ucred);
            if (Interop.Getsockopt(Descriptor.Number, Interop.SOL_SOCKET, Interop.SO_PEERCRED, &credentials, &length) != 0)
            {
                throw LinuxException.FromLastError("ask who is at the other end of a Unix socket");
            }
        }

        return new PeerCredentials(credentials.pid, credentials.uid, credentials.gid);
    }

    /// <summary>Sends bytes, and file descriptors with the first of them.</summary>
    /// <param name="bytes">What to send; at least one byte.</param>
    /// <param name="descriptors">Up to <see cref="MaxDescriptors"/> descriptors; they stay open here too.</param>
    /// <exception cref="ArgumentException">No bytes, or too many descriptors.</exception>
    /// <exception cref="LinuxException">EPIPE: the other end is closed.</exception>
    public void Send(ReadOnlySpan<byte> bytes, params ReadOnlySpan<FileDescriptor> descriptors)
    {
        if (bytes.IsEmpty || descriptors.Length > MaxDescriptors)
        {
            throw new ArgumentException($"A message has at least 1 byte and up to {MaxDescriptors} descriptors, not {bytes.Length} and {descriptors.Length}.", nameof(bytes));
        }

        while (!bytes.IsEmpty)
        {
            nint sent = SendSome(bytes, descriptors);
            if (sent < 0 && Marshal.GetLastPInvokeError() != (int)Errno.EINTR)
            {
                throw LinuxException.FromLastError($"send {bytes.Length} bytes and {descriptors.Length} file descriptors over a Unix socket");
            }

            if (sent > 0)
            {
                bytes = bytes[(int)sent..];
                descriptors = [];
            }
        }
    }

    /// <summary>Receives what has come, waiting for something: bytes, and the file descriptors sent with them.</summary>
    /// <param name="buffer">Takes the bytes.</param>
    /// <param name="descriptors">The descriptors, close-on-exec; the caller disposes them. Empty when none came.</param>
    /// <returns>How many bytes came; 0 when the other end is closed.</returns>
    /// <exception cref="LinuxException">EMSGSIZE: more than <see cref="MaxDescriptors"/> descriptors came; those that came are closed again.</exception>
    public int Receive(Span<byte> buffer, out FileDescriptor[] descriptors)
    {
        // SAFETY: both buffers are pinned or local for the call, and their lengths are stated.
        unsafe
        {
            fixed (byte* data = buffer)
            {
                byte* control = stackalloc byte[ControlBytes];
                var vector = new Interop.iovec { iov_base = (nint)data, iov_len = (nuint)buffer.Length };
                var message = new Interop.msghdr { msg_iov = (nint)(&vector), msg_iovlen = 1, msg_control = (nint)control, msg_controllen = ControlBytes };
                nint received;
                do
                {
                    received = Interop.Recvmsg(Descriptor.Number, &message, Interop.MSG_CMSG_CLOEXEC);
                }
                while (received < 0 && Marshal.GetLastPInvokeError() == (int)Errno.EINTR);

                if (received < 0)
                {
                    throw LinuxException.FromLastError("receive from a Unix socket");
                }

                descriptors = TakeDescriptors(new ReadOnlySpan<byte>(control, (int)message.msg_controllen));
                if ((message.msg_flags & Interop.MSG_CTRUNC) != 0)
                {
                    Array.ForEach(descriptors, descriptor => descriptor.Dispose());
                    throw new LinuxException($"receive more than {MaxDescriptors} file descriptors in one message", Errno.EMSGSIZE);
                }

                return (int)received;
            }
        }
    }

    /// <summary>Closes the socket.</summary>
    public void Dispose() => Descriptor.Dispose();

    private static UnixSocket Create()
    {
        int fd = Interop.Socket(Interop.AF_UNIX, Interop.SOCK_STREAM | Interop.SOCK_CLOEXEC, 0);
        return fd >= 0 ? new UnixSocket(new FileDescriptor(fd)) : throw LinuxException.FromLastError("create a Unix socket");
    }

    private static Interop.sockaddr_un AddressOf(string path)
    {
        var address = new Interop.sockaddr_un { sun_family = Interop.AF_UNIX };

        // SAFETY: the span is as long as the field, and one byte less is filled: the rest is the terminator.
        unsafe
        {
            var bytes = new Span<byte>(address.sun_path, Interop.UnixPathBytes - 1);
            if (path.Length == 0 || !Encoding.UTF8.TryGetBytes(path, bytes, out _))
            {
                throw new ArgumentException($"The path of a Unix socket has 1 to {bytes.Length} bytes, which '{path}' has not.", nameof(path));
            }
        }

        return address;
    }

    private static FileDescriptor[] TakeDescriptors(ReadOnlySpan<byte> control)
    {
        if (control.Length <= ControlHeaderBytes)
        {
            return [];
        }

        Interop.cmsghdr header = MemoryMarshal.Read<Interop.cmsghdr>(control);
        ReadOnlySpan<int> numbers = header is { cmsg_level: Interop.SOL_SOCKET, cmsg_type: Interop.SCM_RIGHTS }
            ? MemoryMarshal.Cast<byte, int>(control[ControlHeaderBytes..Math.Min(control.Length, (int)header.cmsg_len)])
            : [];
        var descriptors = new FileDescriptor[numbers.Length];
        for (int i = 0; i < numbers.Length; i++)
        {
            descriptors[i] = new FileDescriptor(numbers[i]);
        }

        return descriptors;
    }

    private nint SendSome(ReadOnlySpan<byte> bytes, ReadOnlySpan<FileDescriptor> descriptors)
    {
        Span<byte> control = stackalloc byte[ControlHeaderBytes + (descriptors.Length * sizeof(int))];
        var header = new Interop.cmsghdr { cmsg_len = (nuint)control.Length, cmsg_level = Interop.SOL_SOCKET, cmsg_type = Interop.SCM_RIGHTS };
        MemoryMarshal.Write(control, in header);
        for (int i = 0; i < descriptors.Length; i++)
        {
            int number = descriptors[i].Number;
            MemoryMarshal.Write(control[(ControlHeaderBytes + (i * sizeof(int)))..], in number);
        }

        // SAFETY: both buffers are pinned for the call, and their lengths are stated.
        unsafe
        {
            fixed (byte* data = bytes, controls = control)
            {
                var vector = new Interop.iovec { iov_base = (nint)data, iov_len = (nuint)bytes.Length };
                var message = new Interop.msghdr { msg_iov = (nint)(&vector), msg_iovlen = 1 };
                if (!descriptors.IsEmpty)
                {
                    message.msg_control = (nint)controls;
                    message.msg_controllen = (nuint)control.Length;
                }

                return Interop.Sendmsg(Descriptor.Number, &message, Interop.MSG_NOSIGNAL);
            }
        }
    }
}
