using System.Runtime.InteropServices;
using Pageferry.Linux;

namespace Pageferry.Conformance;

/// <summary>I: who may have a userfaultfd. Each case runs on a thread of its own that gives its rights away.</summary>
internal static class PermissionCases
{
    private const int Nobody = 65534;

    /// <summary>The number of the setuid system call.</summary>
    private static int SetuidNumber => RuntimeInformation.ProcessArchitecture == Architecture.Arm64 ? 146 : 105;

    internal static IEnumerable<ConformanceCase> All =>
    [
        new('I', "unprivileged", "without rights a userfaultfd that sees the kernel's faults is EPERM or EACCES, unless the system grants it", "userfaultfd(2)", [MemoryKind.Anonymous], arena =>
        {
            if (IsGranted())
            {
                throw new CaseUnsupportedException("vm.unprivileged_userfaultfd is 1 or /dev/userfaultfd is open to all: the system grants it to everybody");
            }

            Errno refusal = AsNobody(() => Userfaultfd.Open(UserfaultfdFeatures.None));
            arena.Expect(refusal is Errno.EPERM or Errno.EACCES, true, $"the refusal is EPERM or EACCES, not {refusal}");
        }),
        new('I', "unprivileged-user-mode", "without rights UFFD_USER_MODE_ONLY works", "userfaultfd(2)", [MemoryKind.Anonymous], arena =>
            arena.Expect(AsNobody(() => Userfaultfd.Open(UserfaultfdFeatures.None, userModeOnly: true)), Errno.None)),
        new('I', "unprivileged-fork", "without CAP_SYS_PTRACE the feature EVENT_FORK is EPERM", "ioctl_userfaultfd(2)", [MemoryKind.Anonymous], arena =>
            arena.Expect(AsNobody(() => Userfaultfd.Open(UserfaultfdFeatures.EventFork, userModeOnly: true)), Errno.EPERM)),
    ];

    private static bool IsGranted()
    {
        const string Setting = "/proc/sys/vm/unprivileged_userfaultfd";
        bool bySetting = File.Exists(Setting) && File.ReadAllText(Setting).Trim() == "1";
        bool byDevice = File.Exists("/dev/userfaultfd") && File.GetUnixFileMode("/dev/userfaultfd").HasFlag(UnixFileMode.OtherRead);
        return bySetting || byDevice;
    }

    /// <summary>Opens a userfaultfd as user nobody.</summary>
    /// <returns>The refusal; None for none.</returns>
    private static Errno AsNobody(Func<Userfaultfd> open)
    {
        Errno refusal = Errno.None;
        Exception? failure = null;
        var thread = new Thread(() =>
        {
            try
            {
                // Rights belong to a thread in Linux; the C library's setuid would change all of them, the system call changes this one.
                if (Interop.Syscall(SetuidNumber, Nobody) != 0)
                {
                    throw new CaseUnsupportedException("giving the rights of a thread away needs root");
                }

                open().Dispose();
            }
            catch (LinuxException answer)
            {
                refusal = answer.Errno;
            }
            catch (CaseUnsupportedException unsupported)
            {
                failure = unsupported;
            }
        });
        thread.Start();
        thread.Join();
        return failure is null ? refusal : throw failure;
    }
}
