using System.Runtime.InteropServices;
using Pageferry.Linux;

namespace Pageferry.Kvm;

internal static partial class Interop
{
    /// <summary>ioctl(2) with a structure to read or fill, whose size the caller vouches for.</summary>
    [LibraryImport("libc", EntryPoint = "ioctl", SetLastError = true)]
    internal static unsafe partial int Ioctl(int fd, nuint request, void* argument);

    /// <summary>ioctl(2) with a number.</summary>
    [LibraryImport("libc", EntryPoint = "ioctl", SetLastError = true)]
    internal static partial int Ioctl(int fd, nuint request, nint argument);

    /// <summary>An ioctl on a structure in a byte buffer that is at least as long as the kernel's structure.</summary>
    /// <returns>What the kernel returned; -1 with the errno left for <see cref="LinuxException.FromLastError"/>.</returns>
    internal static int Ioctl(FileDescriptor descriptor, nuint request, Span<byte> structure)
    {
        // SAFETY: every caller passes a buffer of at least the size that the request's number or count field states; it is pinned for the call.
        unsafe
        {
            fixed (byte* argument = structure)
            {
                return Ioctl(descriptor.Number, request, argument);
            }
        }
    }
}
