namespace Pageferry.Linux;

/// <summary>What a process can be told from outside.</summary>
public static class OtherProcess
{
    /// <summary>Has a process stand still (SIGSTOP), until <see cref="Continue"/>. A tracer that holds it goes on holding it; without the tracer it stands still.</summary>
    /// <param name="pid">The process.</param>
    /// <exception cref="LinuxException">ESRCH: there is no such process. EPERM: it is somebody else's.</exception>
    public static void Stop(int pid) => Signal(pid, Interop.SIGSTOP, "stop");

    /// <summary>Lets a process go on (SIGCONT), also if it has not stopped yet.</summary>
    /// <param name="pid">The process.</param>
    /// <exception cref="LinuxException">ESRCH: there is no such process. EPERM: it is somebody else's.</exception>
    public static void Continue(int pid) => Signal(pid, Interop.SIGCONT, "continue");

    /// <summary>Ends a process, whatever it does (SIGKILL).</summary>
    /// <param name="pid">The process.</param>
    /// <exception cref="LinuxException">ESRCH: there is no such process. EPERM: it is somebody else's.</exception>
    public static void Kill(int pid) => Signal(pid, Interop.SIGKILL, "kill");

    private static void Signal(int pid, int signal, string verb)
    {
        if (Interop.Kill(pid, signal) != 0)
        {
            throw LinuxException.FromLastError($"{verb} process {pid}");
        }
    }
}
