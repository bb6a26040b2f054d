using System.Globalization;

namespace Pageferry.Cli;

/// <summary>The capabilities that CRIU and what is around it need, and that this process lacks.</summary>
internal static class CapabilityObstacles
{
    private const int NetAdmin = 12;
    private const int SysPtrace = 19;
    private const int SysAdmin = 21;
    private const int CheckpointRestore = 40;

    /// <summary>Finds those that are missing.</summary>
    /// <param name="isTcp">Whether TCP connections go along.</param>
    internal static IEnumerable<Obstacle> Of(bool isTcp)
    {
        _ = ulong.TryParse(ProcFiles.Status("/proc/self", "CapEff"), NumberStyles.HexNumber, CultureInfo.InvariantCulture, out ulong held);
        if (!Has(SysPtrace))
        {
            yield return Missing("CAP_SYS_PTRACE", "to freeze processes and to bring their memory");
        }

        if (!Has(CheckpointRestore) && !Has(SysAdmin))
        {
            yield return Missing("CAP_CHECKPOINT_RESTORE", "to dump and restore processes");
        }

        if (isTcp && !Has(NetAdmin))
        {
            yield return Missing("CAP_NET_ADMIN", "to take TCP connections along");
        }

        bool Has(int capability) => (held & (1UL << capability)) != 0;
    }

    private static Obstacle Missing(string name, string why) => new($"This command lacks {name}, which it needs {why}.", "Run it as root.");
}
