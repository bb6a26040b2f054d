using System.Runtime.InteropServices;

namespace Pageferry.Linux;

/// <summary>
/// A copy of this process (fork(2)) that runs one function of the C library on a stack of its own and ends with what that returns. No managed code runs in it: the
/// runtime's other threads are not there.
/// </summary>
internal sealed class ForkedProcess : IDisposable
{
    private const ulong StackBytes = 64 << 10;

    private readonly ProcessDescriptor _process;
    private bool _isReaped;

    private ForkedProcess(ProcessDescriptor process) => _process = process;

    /// <summary>The process's number.</summary>
    internal int Id => _process.Id;

    /// <summary>Forks. Where this process's memory is registered with <c>UFFD_FEATURE_EVENT_FORK</c>, that waits until the message is read.</summary>
    /// <param name="function">The function's name; it takes one argument, and no lock that another thread may hold just now.</param>
    /// <param name="argument">The argument.</param>
    /// <returns>The process, which the caller disposes.</returns>
    /// <exception cref="LinuxException">EAGAIN: too many processes. ENOMEM: too little memory.</exception>
    internal static ForkedProcess Start(string function, ulong argument)
    {
        nint entry = NativeLibrary.GetExport(NativeLibrary.Load("libc.so.6"), function);
        using var stack = MappedRegion.MapAnonymous(StackBytes);

        // It shares the table of open files, so that it keeps none open that this process closes; its end sends no signal, which the runtime would take for its own children's.
        int pid = Interop.Clone(entry, (nint)(stack.Address + stack.Length), Interop.CLONE_FILES, (nint)argument);
        if (pid < 0)
        {
            throw LinuxException.FromLastError("fork this process");
        }

        try
        {
            return new ForkedProcess(ProcessDescriptor.Open(pid));
        }
        catch
        {
            _ = Interop.Kill(pid, Interop.SIGKILL);
            _ = Interop.Waitpid(pid, out _, Interop.WALL);
            throw;
        }
    }

    /// <summary>Waits until it has ended.</summary>
    /// <param name="timeoutMilliseconds">The longest.</param>
    /// <param name="status">The lowest byte of what its function returned; null if a signal ended it.</param>
    /// <returns>Whether it has ended.</returns>
    internal bool TryWait(int timeoutMilliseconds, out byte? status)
    {
        status = null;
        if (!_process.Wait(timeoutMilliseconds))
        {
            return false;
        }

        if (Interop.Waitpid(_process.Id, out int raw, Interop.WALL) != _process.Id)
        {
            throw LinuxException.FromLastError($"wait for process {_process.Id}");
        }

        // The lowest 7 bits are the signal that ended it.
        _isReaped = true;
        status = (raw & 0x7f) == 0 ? (byte)(raw >> 8) : null;
        return true;
    }

    /// <summary>Ends it, unless it was seen to have ended.</summary>
    public void Dispose()
    {
        if (!_isReaped)
        {
            _process.Kill();
            _isReaped = Interop.Waitpid(_process.Id, out _, Interop.WALL) == _process.Id;
        }

        _process.Dispose();
    }
}
