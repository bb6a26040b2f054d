using System.Globalization;
using System.Net;

namespace Pageferry.Cli;

/// <summary>A TCP socket of a network namespace: a line of /proc/PID/net/tcp or tcp6.</summary>
/// <param name="Local">Its own address.</param>
/// <param name="Remote">The peer's.</param>
/// <param name="IsListening">Whether it waits for connections; else it is one.</param>
/// <param name="Inode">Its number.</param>
internal sealed record TcpSocket(IPEndPoint Local, IPEndPoint Remote, bool IsListening, string Inode)
{
    private const string Listen = "0A";

    /// <summary>States of what is a socket in name only: CLOSE and TIME_WAIT.</summary>
    private static readonly string[] s_over = ["06", "07"];

    /// <summary>Reads those of a process's network namespace.</summary>
    /// <param name="pid">The process.</param>
    internal static IEnumerable<TcpSocket> Of(int pid) => ((string[])["tcp", "tcp6"]).SelectMany(name => ProcFiles.Lines($"/proc/{pid}/net/{name}").Skip(1)).Select(Read).OfType<TcpSocket>();

    private static TcpSocket? Read(string line)
    {
        const int InodeField = 9;
        string[] fields = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        return fields.Length > InodeField && !s_over.Contains(fields[3], StringComparer.Ordinal)
            ? new TcpSocket(Address(fields[1]), Address(fields[2]), fields[3] == Listen, fields[InodeField])
            : null;
    }

    /// <summary>An address in words of the machine's byte order.</summary>
    private static IPEndPoint Address(string text)
    {
        int colon = text.IndexOf(':', StringComparison.Ordinal);
        byte[] bytes = Convert.FromHexString(text.AsSpan(0, colon));
        for (int word = 0; word < bytes.Length; word += sizeof(uint))
        {
            bytes.AsSpan(word, sizeof(uint)).Reverse();
        }

        return new IPEndPoint(new IPAddress(bytes), int.Parse(text.AsSpan(colon + 1), NumberStyles.HexNumber, CultureInfo.InvariantCulture));
    }
}
