using System.Runtime.InteropServices;

namespace Pageferry.Linux;

internal static partial class Interop
{
    internal const short POLLIN = 1;
    internal const short POLLOUT = 4;
    internal const short POLLERR = 8;
    internal const short POLLHUP = 16;
    internal const short POLLNVAL = 32;

    [LibraryImport(Libraries.C, EntryPoint = "poll", SetLastError = true)]
    internal static unsafe partial int Poll(pollfd* entries, nuint count, int timeoutMilliseconds);

    [StructLayout(LayoutKind.Sequential)]
    internal struct pollfd
    {
        internal int fd;
        internal short events;
        internal short revents;
    }
}
