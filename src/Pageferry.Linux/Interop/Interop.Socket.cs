using System.Runtime.InteropServices;

namespace Pageferry.Linux;

internal static partial class Interop
{
    internal const int AF_UNIX = 1;
    internal const int SOCK_STREAM = 1;
    internal const int SOCK_DGRAM = 2;
    internal const int SOCK_SEQPACKET = 5;

    /// <summary>The same value on x86-64 and arm64.</summary>
    internal const int SOCK_CLOEXEC = O_CLOEXEC;

    internal const int SOL_SOCKET = 1;
    internal const int SO_PEERCRED = 17;

    [LibraryImport(Libraries.C, EntryPoint = "socket", SetLastError = true)]
    internal static partial int Socket(int domain, int type, int protocol);

    [LibraryImport(Libraries.C, EntryPoint = "socketpair", SetLastError = true)]
    internal static unsafe partial int Socketpair(int domain, int type, int protocol, int* pair);

    [LibraryImport(Libraries.C, EntryPoint = "bind", SetLastError = true)]
    internal static unsafe partial int Bind(int fd, sockaddr_un* address, uint length);

    [LibraryImport(Libraries.C, EntryPoint = "connect", SetLastError = true)]
    internal static unsafe partial int Connect(int fd, sockaddr_un* address, uint length);

    [LibraryImport(Libraries.C, EntryPoint = "listen", SetLastError = true)]
    internal static partial int Listen(int fd, int backlog);

    [LibraryImport(Libraries.C, EntryPoint = "accept4", SetLastError = true)]
    internal static unsafe partial int Accept4(int fd, void* address, uint* length, int flags);

    [LibraryImport(Libraries.C, EntryPoint = "getsockopt", SetLastError = true)]
    internal static unsafe partial int Getsockopt(int fd, int level, int option, void* value, uint* length);

    [StructLayout(LayoutKind.Sequential)]
    internal unsafe struct sockaddr_un
    {
        internal const int PathLength = 108;

        internal ushort sun_family;
        internal fixed byte sun_path[PathLength];
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct ucred
    {
        internal int pid;
        internal uint uid;
        internal uint gid;
    }
}
