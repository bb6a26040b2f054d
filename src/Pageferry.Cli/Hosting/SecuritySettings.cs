using Pageferry.Migration;

namespace Pageferry.Cli;

/// <summary>Who a side of a migration is and whom it trusts, as a control request carries it. The process that connects reads the files.</summary>
internal sealed record SecuritySettings
{
    /// <summary>The file of this side's certificate; null, like the next two, for connections without TLS.</summary>
    public string? TlsCert { get; init; }

    /// <summary>The file of its private key.</summary>
    public string? TlsKey { get; init; }

    /// <summary>The file of the authority to trust.</summary>
    public string? TlsCa { get; init; }

    /// <summary>The name that the peer's certificate has to be for; null for <see cref="MigrationSecurity.PeerName"/>'s default.</summary>
    public string? TlsHostname { get; init; }

    /// <summary>Whether to leave loopback without TLS.</summary>
    public bool InsecureNetwork { get; init; }

    /// <summary>Reads the files.</summary>
    /// <returns>The security, which the caller disposes; null for connections without TLS.</returns>
    /// <exception cref="CommandException">A file is missing, or not what it should be.</exception>
    internal MigrationSecurity? Load()
    {
        if (TlsCert is null && TlsKey is null && TlsCa is null && TlsHostname is null)
        {
            return null;
        }

        if (TlsCert is null || TlsKey is null || TlsCa is null)
        {
            throw new CommandException("TLS needs a certificate, its key and an authority.");
        }

        try
        {
            return MigrationSecurity.Load(TlsCert, TlsKey, TlsCa, TlsHostname);
        }
        catch (MigrationSecurityException e)
        {
            throw new CommandException(e.Message);
        }
    }
}
