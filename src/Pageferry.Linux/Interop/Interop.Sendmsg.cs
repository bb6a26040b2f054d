using System.Runtime.InteropServices;

namespace Pageferry.Linux;

internal static partial class Interop
{
    internal const int SCM_RIGHTS = 1;
    internal const int MSG_PEEK = 2;
    internal const int MSG_CTRUNC = 8;
    internal const int MSG_TRUNC = 0x20;
    internal const int MSG_DONTWAIT = 0x40;
    internal const int MSG_NOSIGNAL = 0x4000;
    internal const int MSG_CMSG_CLOEXEC = 0x40000000;

    [LibraryImport(Libraries.C, EntryPoint = "sendmsg", SetLastError = true)]
    internal static unsafe partial nint Sendmsg(int fd, msghdr* message, int flags);

    [LibraryImport(Libraries.C, EntryPoint = "recvmsg", SetLastError = true)]
    internal static unsafe partial nint Recvmsg(int fd, msghdr* message, int flags);

    [StructLayout(LayoutKind.Sequential)]
    internal unsafe struct iovec
    {
        internal void* iov_base;
        internal nuint iov_len;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal unsafe struct msghdr
    {
        internal void* msg_name;
        internal uint msg_namelen;
        internal iovec* msg_iov;
        internal nuint msg_iovlen;
        internal void* msg_control;
        internal nuint msg_controllen;
        internal int msg_flags;
    }

    /// <summary>What stands before the descriptors in the control buffer; they follow without a gap.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct cmsghdr
    {
        internal nuint cmsg_len;
        internal int cmsg_level;
        internal int cmsg_type;
    }
}
