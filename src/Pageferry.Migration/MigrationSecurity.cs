using System.Net.Security;
using System.Security.Authentication;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;

namespace Pageferry.Migration;

/// <summary>
/// Who this side is and whom it trusts: TLS 1.3 in which both sides show a certificate that one authority has signed. Immutable.
/// </summary>
/// <remarks>The system's own authorities are not asked, and nothing is fetched over the network to judge a certificate.</remarks>
public sealed class MigrationSecurity : IDisposable
{
    /// <summary>The most bytes of a file: a certificate has few thousand.</summary>
    private const int MostFileBytes = 1 << 20;

    /// <summary>What a chain is that does not end where it should.</summary>
    private const X509ChainStatusFlags Foreign =
        X509ChainStatusFlags.PartialChain | X509ChainStatusFlags.UntrustedRoot | X509ChainStatusFlags.NotSignatureValid;

    private const string ServerUse = "1.3.6.1.5.5.7.3.1";
    private const string ClientUse = "1.3.6.1.5.5.7.3.2";

    private readonly X509Certificate2 _certificate;
    private readonly X509Certificate2Collection _authorities;
    private readonly SslStreamCertificateContext _context;

    private MigrationSecurity(X509Certificate2 certificate, X509Certificate2Collection between, X509Certificate2Collection authorities, string? peerName)
    {
        _certificate = certificate;
        _authorities = authorities;
        _context = SslStreamCertificateContext.Create(certificate, between, offline: true);
        PeerName = peerName;
    }

    /// <summary>
    /// The name that the peer's certificate has to be for. Without one, the source expects the name or address that it connects to, and the
    /// destination takes every certificate that the authority has signed.
    /// </summary>
    public string? PeerName { get; }

    /// <summary>Reads the files and checks that they belong together and are good today.</summary>
    /// <param name="certificateFile">This side's certificate, PEM; certificates between it and the authority may follow it.</param>
    /// <param name="keyFile">The certificate's private key, PEM, not encrypted.</param>
    /// <param name="authorityFile">The authority to trust, PEM; it may hold several.</param>
    /// <param name="peerName">The name that the peer's certificate has to be for; null for the default of <see cref="PeerName"/>.</param>
    /// <returns>The security.</returns>
    /// <exception cref="MigrationSecurityException">A file is missing or not what it should be, or the certificate is not good for this.</exception>
    public static MigrationSecurity Load(string certificateFile, string keyFile, string authorityFile, string? peerName = null)
    {
        if (peerName is not null && Uri.CheckHostName(peerName) is not (UriHostNameType.Dns or UriHostNameType.IPv4 or UriHostNameType.IPv6))
        {
            throw new MigrationSecurityException($"Could not expect a peer named '{peerName}': that is neither a host name nor an address.");
        }

        X509Certificate2Collection authorities = ReadCertificates(authorityFile, "the authority (CA)");
        X509Certificate2Collection chain = ReadCertificates(certificateFile, "the certificate");
        X509Certificate2 certificate = WithKey(chain[0], certificateFile, keyFile);
        chain.RemoveAt(0);
        if (!IsToday(certificate))
        {
            string when = DateTime.Now < certificate.NotBefore ? $"is not valid before {certificate.NotBefore.ToUniversalTime():u}" : $"expired on {certificate.NotAfter.ToUniversalTime():u}";
            throw new MigrationSecurityException($"Could not use the certificate {certificateFile}: it {when}. Make another one: pageferry tls init.");
        }

        foreach (string use in (string[])[ServerUse, ClientUse])
        {
            if (Refusal(certificate, chain, authorities, use) is { } refusal)
            {
                throw new MigrationSecurityException(
                    $"Could not use the certificate {certificateFile} with the authority {authorityFile}: {refusal}. Use a certificate that this authority has signed for clients and servers: pageferry tls init makes one.");
            }
        }

        return new MigrationSecurity(certificate, chain, authorities, peerName);
    }

    /// <summary>Forgets the key.</summary>
    public void Dispose()
    {
        _certificate.Dispose();
        foreach (X509Certificate2 authority in _authorities)
        {
            authority.Dispose();
        }
    }

    /// <summary>Begins TLS over a connection that carries something else than a migration, as the side that connected.</summary>
    /// <param name="connection">The connection; disposing what is returned disposes it.</param>
    /// <param name="host">The name or address that was connected to, which the peer's certificate has to be for unless <see cref="PeerName"/> is another.</param>
    /// <param name="cancellationToken">Ends the handshake.</param>
    /// <returns>The stream; and why the peer's certificate is refused, null if it is good. A peer that is refused is told why, and gets nothing else.</returns>
    /// <exception cref="IOException">There is no TLS with this peer.</exception>
    public async Task<(Stream Stream, string? Refusal)> SecureAsSourceAsync(Stream connection, string host, CancellationToken cancellationToken)
    {
        string? refused = null;
        Stream stream = await SecureAsync(connection, tls => tls.AuthenticateAsClientAsync(ForSource(host, why => refused = why), cancellationToken)).ConfigureAwait(false);
        return (stream, refused);
    }

    /// <summary>Begins TLS over a connection that carries something else than a migration, as the side that was connected to.</summary>
    /// <param name="connection">The connection; disposing what is returned disposes it.</param>
    /// <param name="cancellationToken">Ends the handshake.</param>
    /// <returns>As with <see cref="SecureAsSourceAsync"/>.</returns>
    /// <exception cref="IOException">There is no TLS with this peer.</exception>
    public async Task<(Stream Stream, string? Refusal)> SecureAsDestinationAsync(Stream connection, CancellationToken cancellationToken)
    {
        string? refused = null;
        Stream stream = await SecureAsync(connection, tls => tls.AuthenticateAsServerAsync(ForDestination(why => refused = why), cancellationToken)).ConfigureAwait(false);
        return (stream, refused);
    }

    /// <summary>How a source begins TLS.</summary>
    /// <param name="host">The name or address that it connects to.</param>
    /// <param name="refused">As with <see cref="ForDestination"/>.</param>
    internal SslClientAuthenticationOptions ForSource(string host, Action<string> refused)
    {
        string name = PeerName ?? host;
        return new SslClientAuthenticationOptions
        {
            TargetHost = name,
            ClientCertificateContext = _context,
            EnabledSslProtocols = SslProtocols.Tls13,
            AllowTlsResume = false,
            AllowRenegotiation = false,
            CertificateChainPolicy = Policy(_authorities, ServerUse),
            RemoteCertificateValidationCallback = (_, certificate, chain, _) =>
            {
                Judge(certificate, chain, ServerUse, name, refused);
                return true;
            },
        };
    }

    /// <summary>How a destination begins TLS.</summary>
    /// <param name="refused">
    /// Hears why the peer's certificate is not taken. The handshake ends well all the same, so that the peer can be told why: who calls
    /// this tells it and closes the connection.
    /// </param>
    internal SslServerAuthenticationOptions ForDestination(Action<string> refused) => new()
    {
        ServerCertificateContext = _context,
        ClientCertificateRequired = true,
        EnabledSslProtocols = SslProtocols.Tls13,
        AllowTlsResume = false,
        AllowRenegotiation = false,
        CertificateChainPolicy = Policy(_authorities, ClientUse),
        RemoteCertificateValidationCallback = (_, certificate, chain, _) =>
        {
            Judge(certificate, chain, ClientUse, PeerName, refused);
            return true;
        },
    };

    private static async Task<Stream> SecureAsync(Stream connection, Func<SslStream, Task> authenticate)
    {
        var tls = new SslStream(connection, leaveInnerStreamOpen: false);
        try
        {
            await authenticate(tls).ConfigureAwait(false);
            return tls;
        }
        catch (Exception failure)
        {
            await tls.DisposeAsync().ConfigureAwait(false);
            if (failure is AuthenticationException)
            {
                throw new IOException($"There is no TLS with this peer: {failure.InnerException?.Message ?? failure.Message}", failure);
            }

            throw;
        }
    }

    private void Judge(X509Certificate? certificate, X509Chain? chain, string use, string? name, Action<string> refused)
    {
        string? refusal = certificate is X509Certificate2 shown
            ? Refusal(shown, chain?.ChainPolicy.ExtraStore ?? [], _authorities, use) ?? NameRefusal(shown, name)
            : "it showed no certificate";
        if (refusal is not null)
        {
            refused(refusal);
        }
    }

    private static bool IsToday(X509Certificate2 certificate)
    {
        DateTime now = DateTime.Now;
        return now >= certificate.NotBefore && now <= certificate.NotAfter;
    }

    /// <returns>Why a certificate is not good; null when it is.</returns>
    private static string? Refusal(X509Certificate2 certificate, X509Certificate2Collection between, X509Certificate2Collection authorities, string use)
    {
        using var chain = new X509Chain { ChainPolicy = Policy(authorities, use) };
        chain.ChainPolicy.ExtraStore.AddRange(between);
        if (chain.Build(certificate))
        {
            return null;
        }

        X509ChainStatusFlags flags = chain.ChainStatus.Aggregate(X509ChainStatusFlags.NoError, (all, status) => all | status.Status);
        string name = $"the certificate '{Printable(certificate.Subject)}'";
        return flags switch
        {
            _ when flags.HasFlag(X509ChainStatusFlags.NotTimeValid) && IsToday(certificate) => $"the authority that signed {name} is not valid today",
            _ when flags.HasFlag(X509ChainStatusFlags.NotTimeValid) => $"{name} is valid from {certificate.NotBefore.ToUniversalTime():u} to {certificate.NotAfter.ToUniversalTime():u}, and it is now {DateTime.UtcNow:u}",
            _ when (flags & Foreign) != X509ChainStatusFlags.NoError => $"{name} is not signed by the authority trusted here, '{Printable(authorities[0].Subject)}'",
            _ when flags.HasFlag(X509ChainStatusFlags.NotValidForUsage) => $"{name} is not for {(use == ServerUse ? "servers" : "clients")}",
            _ => $"{name} is not good ({flags})",
        };
    }

    private static string? NameRefusal(X509Certificate2 certificate, string? name) =>
        name is null || certificate.MatchesHostname(name, allowWildcards: true, allowCommonName: false)
            ? null
            : $"the certificate '{Printable(certificate.Subject)}' is for {Names(certificate)}, not for {name}";

    private static string Names(X509Certificate2 certificate)
    {
        X509SubjectAlternativeNameExtension? names = certificate.Extensions.OfType<X509SubjectAlternativeNameExtension>().FirstOrDefault();
        string text = names is null ? string.Empty : Printable(string.Join(", ", names.EnumerateDnsNames().Concat(names.EnumerateIPAddresses().Select(address => address.ToString()))));
        return text.Length > 0 ? text : "no name";
    }

    /// <summary>A peer's words for a log or a terminal: short, and without control characters.</summary>
    private static string Printable(string text) => string.Concat(text.Where(character => !char.IsControl(character)).Take(200));

    private static X509ChainPolicy Policy(X509Certificate2Collection authorities, string use)
    {
        var policy = new X509ChainPolicy
        {
            TrustMode = X509ChainTrustMode.CustomRootTrust,
            RevocationMode = X509RevocationMode.NoCheck,
            DisableCertificateDownloads = true,
        };
        policy.CustomTrustStore.AddRange(authorities);
        _ = policy.ApplicationPolicy.Add(new Oid(use));
        return policy;
    }

    private static X509Certificate2 WithKey(X509Certificate2 certificate, string certificateFile, string keyFile)
    {
        string key = ReadText(keyFile, "the key");
        try
        {
            certificate = X509Certificate2.CreateFromPem(certificate.ExportCertificatePem(), key);
        }
        catch (Exception failure) when (failure is CryptographicException or ArgumentException)
        {
            bool isKey = key.Contains("PRIVATE KEY-----", StringComparison.Ordinal) && !key.Contains("ENCRYPTED", StringComparison.Ordinal);
            throw new MigrationSecurityException(
                isKey
                    ? $"Could not use the key {keyFile} with the certificate {certificateFile}: it is another certificate's key, or damaged. Give the key that was made with the certificate."
                    : $"Could not read the key {keyFile}: there is no private key in it in PEM, or it is encrypted. Give a file with 'BEGIN PRIVATE KEY' in it.",
                failure);
        }

        if ((File.GetUnixFileMode(keyFile) & (UnixFileMode.OtherRead | UnixFileMode.OtherWrite)) != UnixFileMode.None)
        {
            throw new MigrationSecurityException($"Could not use the key {keyFile}: every user of this host may read or write it. Keep it to those who need it: chmod o= {keyFile}.");
        }

        return certificate;
    }

    private static X509Certificate2Collection ReadCertificates(string file, string what)
    {
        string text = ReadText(file, what);
        var certificates = new X509Certificate2Collection();
        CryptographicException? cause = null;
        try
        {
            certificates.ImportFromPem(text);
        }
        catch (CryptographicException failure)
        {
            cause = failure;
        }

        return certificates.Count > 0 && cause is null
            ? certificates
            : throw new MigrationSecurityException($"Could not read {what} {file}: there is no certificate in it in PEM, or it is damaged. Give a file with 'BEGIN CERTIFICATE' in it.", cause);
    }

    private static string ReadText(string file, string what)
    {
        try
        {
            // A file may state no length, or a wrong one.
            using FileStream stream = File.OpenRead(file);
            var bytes = new byte[MostFileBytes + 1];
            int read = stream.ReadAtLeast(bytes, bytes.Length, throwOnEndOfStream: false);
            return read <= MostFileBytes
                ? Encoding.UTF8.GetString(bytes, 0, read)
                : throw new MigrationSecurityException($"Could not read {what} {file}: it has more than {MostFileBytes} bytes, which is no PEM file.");
        }
        catch (Exception failure) when (failure is UnauthorizedAccessException or (IOException and not MigrationSecurityException))
        {
            string why = failure is FileNotFoundException or DirectoryNotFoundException ? "there is no such file" : failure.Message;
            throw new MigrationSecurityException($"Could not read {what} {file}: {why}. Give a PEM file that this user may read; pageferry tls init makes all of them.", failure);
        }
    }
}
