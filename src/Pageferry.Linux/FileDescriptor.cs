using System.Runtime.InteropServices;

namespace Pageferry.Linux;

/// <summary>An open file of the kernel, closed once when nobody uses it any more.</summary>
public sealed class FileDescriptor : SafeHandle
{
    /// <summary>Takes over a file descriptor.</summary>
    /// <param name="fd">The descriptor's number; -1 for none.</param>
    /// <param name="ownsHandle">Whether disposing closes it.</param>
    public FileDescriptor(int fd, bool ownsHandle = true)
        : base(-1, ownsHandle) => SetHandle(fd);

    /// <inheritdoc/>
    public override bool IsInvalid => handle < 0;

    /// <summary>The descriptor's number, for a system call made while this object is known to live.</summary>
    public int Number => (int)DangerousGetHandle();

    /// <summary>Duplicates the descriptor (<c>F_DUPFD_CLOEXEC</c>): both name the same open file.</summary>
    /// <returns>The duplicate, which the caller disposes.</returns>
    /// <exception cref="LinuxException">The process has too many open files (EMFILE).</exception>
    public FileDescriptor Duplicate()
    {
        int copy = Interop.Fcntl(Number, Interop.F_DUPFD_CLOEXEC, 0);
        return copy >= 0 ? new FileDescriptor(copy) : throw LinuxException.FromLastError($"duplicate file descriptor {Number}");
    }

    /// <summary>Duplicates the descriptor for programs to be started (<c>F_DUPFD</c>): the duplicate stays open in them, under its number.</summary>
    /// <returns>The duplicate, which the caller disposes as soon as the program runs: whatever else is started meanwhile gets it too.</returns>
    /// <exception cref="LinuxException">The process has too many open files (EMFILE).</exception>
    public FileDescriptor DuplicateForPrograms()
    {
        int copy = Interop.Fcntl(Number, Interop.F_DUPFD, 0);
        return copy >= 0 ? new FileDescriptor(copy) : throw LinuxException.FromLastError($"duplicate file descriptor {Number}");
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle() => Interop.Close((int)handle) == 0;
}
