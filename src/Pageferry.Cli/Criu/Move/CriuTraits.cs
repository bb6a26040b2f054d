namespace Pageferry.Cli;

/// <summary>What is special about processes that are moved, by the names of CRIU's options.</summary>
internal sealed record CriuTraits
{
    /// <summary>Whether TCP connections go along.</summary>
    public bool TcpEstablished { get; init; }

    /// <summary>Whether TCP connections are closed.</summary>
    public bool TcpClose { get; init; }

    /// <summary>Whether the processes belong to a shell's terminal.</summary>
    public bool ShellJob { get; init; }

    /// <summary>Whether Unix sockets may be connected to processes that stay.</summary>
    public bool ExtUnixSk { get; init; }

    /// <summary>Whether file locks go along.</summary>
    public bool FileLocks { get; init; }

    /// <summary>How connections are kept from answering meanwhile: iptables, nftables or skip; null where there are none to keep.</summary>
    public string? NetworkLock { get; init; }

    /// <summary>The options for <c>criu dump</c> and <c>criu restore</c>.</summary>
    internal IEnumerable<string> Options()
    {
        if (TcpEstablished)
        {
            yield return "--tcp-established";
        }

        if (TcpClose)
        {
            yield return "--tcp-close";
        }

        if (ShellJob)
        {
            yield return "--shell-job";
        }

        if (ExtUnixSk)
        {
            yield return "--ext-unix-sk";
        }

        if (FileLocks)
        {
            yield return "--file-locks";
        }

        if (NetworkLock is not null)
        {
            yield return "--network-lock";
            yield return NetworkLock;
        }
    }
}
