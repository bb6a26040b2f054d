namespace Pageferry.Linux;

/// <summary>What a process asks the kernel for itself.</summary>
public static class CurrentProcess
{
    /// <summary>Begins a session of its own (setsid(2)): no terminal's signals reach the process any more.</summary>
    /// <exception cref="LinuxException">EPERM: the process leads a group already.</exception>
    public static void BeginSession()
    {
        if (Interop.Setsid() < 0)
        {
            throw LinuxException.FromLastError("begin a session", "Start it as a child of another process, as 'setsid' does.");
        }
    }
}
