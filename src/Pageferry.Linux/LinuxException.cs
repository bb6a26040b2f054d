using System.Runtime.InteropServices;

namespace Pageferry.Linux;

/// <summary>A system call failed: what was tried, on what, the kernel's answer and, where known, what to do.</summary>
public sealed class LinuxException : IOException
{
    /// <summary>Makes the exception.</summary>
    /// <param name="operation">What was tried and on what, as an infinitive: "map 4096 bytes of memfd guest".</param>
    /// <param name="errno">The kernel's answer.</param>
    /// <param name="advice">What the reader can do about it, as a sentence; null when nothing is known.</param>
    public LinuxException(string operation, Errno errno, string? advice = null)
        : base(Describe(operation, errno, advice))
    {
        Operation = operation;
        Errno = errno;
        HResult = (int)errno;
    }

    /// <summary>What was tried and on what.</summary>
    public string Operation { get; }

    /// <summary>The kernel's answer.</summary>
    public Errno Errno { get; }

    /// <summary>Makes the exception from the errno that the last P/Invoke of this thread left.</summary>
    /// <param name="operation">What was tried and on what.</param>
    /// <param name="advice">What the reader can do about it.</param>
    /// <returns>The exception, to be thrown.</returns>
    public static LinuxException FromLastError(string operation, string? advice = null) =>
        new(operation, (Errno)Marshal.GetLastPInvokeError(), advice);

    private static string Describe(string operation, Errno errno, string? advice)
    {
        string name = Enum.IsDefined(errno) ? errno.ToString() : $"errno {(int)errno}";
        string message = $"Could not {operation}: {name} ({Marshal.GetPInvokeErrorMessage((int)errno)}).";
        return advice is null ? message : $"{message} {advice}";
    }
}
