using System.Runtime.InteropServices;

namespace Pageferry.Linux;

/// <summary>A process that somebody else started, whatever its number stands for later: a pidfd (pidfd_open(2)).</summary>
public sealed class ProcessDescriptor : IDisposable
{
    private readonly FileDescriptor _descriptor;

    private ProcessDescriptor(FileDescriptor descriptor, int id)
    {
        _descriptor = descriptor;
        Id = id;
    }

    /// <summary>The process's number.</summary>
    public int Id { get; }

    /// <summary>Whether the process has ended; it may still be there as a zombie.</summary>
    public bool HasEnded => Wait(0);

    /// <summary>Whether this process may send it signals; true also of one that has ended and was waited for.</summary>
    public bool MayBeSignalled =>
        Interop.PidfdSendSignal(Interop.SYS_pidfd_send_signal, _descriptor.Number, 0, 0, 0) == 0 || Marshal.GetLastPInvokeError() != (int)Errno.EPERM;

    /// <summary>Opens the process that has a number now.</summary>
    /// <param name="id">The number.</param>
    /// <returns>The process, which the caller disposes.</returns>
    /// <exception cref="LinuxException">ESRCH, EINVAL: there is no such process. EMFILE: this process has too many open files.</exception>
    public static ProcessDescriptor Open(int id)
    {
        long fd = Interop.PidfdOpen(Interop.SYS_pidfd_open, id, 0);
        return fd >= 0 ? new ProcessDescriptor(new FileDescriptor((int)fd), id) : throw LinuxException.FromLastError($"open process {id}");
    }

    /// <summary>Ends it (SIGKILL), unless it has ended.</summary>
    /// <exception cref="LinuxException">EPERM: it is somebody else's.</exception>
    public void Kill()
    {
        if (Interop.PidfdSendSignal(Interop.SYS_pidfd_send_signal, _descriptor.Number, Interop.SIGKILL, 0, 0) != 0 && Marshal.GetLastPInvokeError() != (int)Errno.ESRCH)
        {
            throw LinuxException.FromLastError($"kill process {Id}");
        }
    }

    /// <summary>Waits until it has ended.</summary>
    /// <param name="timeoutMilliseconds">The longest; 0 for a look only, -1 for no limit.</param>
    /// <returns>Whether it has.</returns>
    public bool Wait(int timeoutMilliseconds) => new Poll(_descriptor).Wait(timeoutMilliseconds) > 0;

    /// <summary>Closes the descriptor. The process goes on.</summary>
    public void Dispose() => _descriptor.Dispose();
}
