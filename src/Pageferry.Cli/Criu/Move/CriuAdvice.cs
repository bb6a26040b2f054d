using System.Text.RegularExpressions;

namespace Pageferry.Cli;

/// <summary>What CRIU says when it fails, and what to do about it.</summary>
internal static partial class CriuAdvice
{
    /// <summary>It tries to have more descriptors, and does without.</summary>
    private const string Harmless = "RLIMIT_NOFILE";

    /// <summary>Words of an error, which may have others between them, and the remedy.</summary>
    private static readonly (string Words, string Remedy)[] s_remedies =
    [
        ("Connected TCP socket", "It has TCP connections: move it with --tcp-established, or with --tcp-close to have them closed."),
        ("Iptables configuration failed", "iptables is not installed: give --network-lock nftables, or --network-lock skip where nothing answers for it meanwhile."),
        ("nftables", "Install nftables, or give --network-lock iptables or skip."),
        ("1:16 opt", "Linux 6.16 and later need CRIU 4.2 for TCP sockets: give a newer one with --criu."),
        ("Address already in use", "Its port is taken here: end who listens there, or receive in a network namespace of its own (ip netns exec)."),
        ("Cannot assign requested address", "Its address is not one of this network namespace: add it first (ip address add)."),
        ("Can't bind inet", "Its address or port can't be had in this network namespace: add the address (ip address add), end who has the port."),
        ("is taken", "Its process id is taken here: receive in a pid namespace of its own (unshare -p -f -m --mount-proc)."),
        ("File exists", "One of its process ids is taken here: receive in a pid namespace of its own (unshare -p -f -m --mount-proc)."),
        ("shell-job", "It belongs to a terminal: move it with --shell-job, or start it with setsid and without the terminal."),
        ("dangling connection", "It is connected to a Unix socket of a process that stays: move it with --ext-unix-sk, which cuts that."),
        ("external socket", "It is connected to a Unix socket of a process that stays: move it with --ext-unix-sk, which cuts that."),
        ("file locks", "It holds file locks: move it with --file-locks."),
        ("Network is unreachable", "The loopback device is down in this network namespace: ip link set lo up."),
        ("bad file size", "A file that it has open is not as it was at the source: let it be the same file on both sides."),
        ("No such file or directory", "A file that it uses is not here: it has to be at the same path on both sides."),
        ("userfaultfd…Operation not permitted", "userfaultfd is for those who may trace others: run it as root, with CAP_SYS_PTRACE, or allow it to all by sysctl -w vm.unprivileged_userfaultfd=1."),
        ("Can't dump…userfaultfd", "A process that uses userfaultfd itself can't be dumped: CRIU has no way to."),
        ("Operation not permitted", "Run it as root, or with CAP_CHECKPOINT_RESTORE, CAP_SYS_PTRACE and CAP_NET_ADMIN."),
    ];

    /// <summary>What a command of CRIU's failed of, and what to do.</summary>
    /// <param name="logFile">Its log.</param>
    /// <returns>Its last errors, and remedies for those that are known.</returns>
    internal static string ExplainLog(string logFile) => Explain(ProcFiles.Lines(logFile));

    /// <inheritdoc cref="ExplainLog"/>
    internal static string Explain(IEnumerable<string> log)
    {
        string[] errors = [.. log.Where(static line => line.Contains("Error (", StringComparison.Ordinal) && !line.Contains(Harmless, StringComparison.Ordinal)).Select(static line => Where().Replace(line, string.Empty).Trim()).TakeLast(4)];
        string[] remedies = [.. s_remedies.Where(known => errors.Any(error => Array.TrueForAll(known.Words.Split('…'), word => error.Contains(word, StringComparison.OrdinalIgnoreCase)))).Select(known => known.Remedy).Take(2)];
        return errors.Length == 0 ? "CRIU did not say why." : string.Join(" ", [.. errors.Select(error => error.TrimEnd('.') + "."), .. remedies]);
    }

    /// <summary>When, and in which line of CRIU's source.</summary>
    [GeneratedRegex(@"^\([0-9.]+\)\s*(?:[0-9]+:\s*)?Error \([^)]*\): ", RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1000)]
    private static partial Regex Where();
}
