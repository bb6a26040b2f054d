using System.Globalization;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace Pageferry.Cli;

/// <summary>An authority that signs hosts' certificates, for people who have none.</summary>
internal sealed class CertificateAuthority : IDisposable
{
    private const string ServerUse = "1.3.6.1.5.5.7.3.1";
    private const string ClientUse = "1.3.6.1.5.5.7.3.2";
    private const int AuthorityYears = 10;
    private const int HostYears = 2;

    /// <summary>What RFC 5280 allows a common name.</summary>
    private const int LongestCommonName = 64;

    private const int SerialBytes = 16;

    /// <summary>How far hosts' clocks may be behind this one's.</summary>
    private static readonly TimeSpan s_clockSkew = TimeSpan.FromDays(1);

    private readonly X509Certificate2 _certificate;

    private CertificateAuthority(X509Certificate2 certificate) => _certificate = certificate;

    /// <summary>Its certificate.</summary>
    internal string CertificatePem => _certificate.ExportCertificatePem();

    /// <summary>The last day on which its certificate is good.</summary>
    internal DateTimeOffset Until => ToUtc(_certificate.NotAfter);

    /// <summary>Makes one.</summary>
    /// <param name="keyPem">Its private key.</param>
    /// <returns>The authority.</returns>
    internal static CertificateAuthority Create(out string keyPem)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        string name = string.Create(CultureInfo.InvariantCulture, $"CN=Pageferry authority {RandomNumberGenerator.GetHexString(8, lowercase: true)}");
        var request = new CertificateRequest(name, key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(certificateAuthority: true, hasPathLengthConstraint: true, pathLengthConstraint: 0, critical: true));
        request.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.KeyCertSign | X509KeyUsageFlags.CrlSign, critical: true));
        request.CertificateExtensions.Add(new X509SubjectKeyIdentifierExtension(request.PublicKey, critical: false));
        DateTimeOffset now = DateTimeOffset.UtcNow;
        keyPem = key.ExportPkcs8PrivateKeyPem();
        return new CertificateAuthority(request.CreateSelfSigned(now - s_clockSkew, now.AddYears(AuthorityYears)));
    }

    /// <summary>Takes one up again.</summary>
    /// <param name="certificateFile">Its certificate, PEM.</param>
    /// <param name="keyFile">Its private key, PEM.</param>
    /// <returns>The authority.</returns>
    /// <exception cref="CommandException">The files are no authority that can sign.</exception>
    internal static CertificateAuthority Load(string certificateFile, string keyFile)
    {
        X509Certificate2 certificate;
        try
        {
            certificate = X509Certificate2.CreateFromPemFile(certificateFile, keyFile);
        }
        catch (Exception e) when (e is CryptographicException or IOException or UnauthorizedAccessException)
        {
            throw new CommandException($"Could not sign with the authority {certificateFile} and its key {keyFile}: {e.Message} Nothing was written; choose another directory for a new authority.");
        }

        bool isAuthority = certificate.Extensions.OfType<X509BasicConstraintsExtension>().Any(constraints => constraints.CertificateAuthority);
        if (!isAuthority || certificate.NotAfter < DateTime.Now)
        {
            string why = isAuthority ? $"it expired on {certificate.NotAfter.ToUniversalTime():u}" : "it is no authority's certificate";
            throw new CommandException($"Could not sign with {certificateFile}: {why}. Nothing was written; choose another directory for a new authority.");
        }

        return new CertificateAuthority(certificate);
    }

    /// <summary>Signs a new certificate, with which a host both sends and receives.</summary>
    /// <param name="host">The names that it is for.</param>
    /// <param name="keyPem">Its private key.</param>
    /// <param name="until">The last day on which it is good.</param>
    /// <returns>The certificate.</returns>
    internal string Sign(HostNames host, out string keyPem, out DateTimeOffset until)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        string name = host.All[0];
        var request = new CertificateRequest($"CN={name[..Math.Min(name.Length, LongestCommonName)]}", key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(certificateAuthority: false, hasPathLengthConstraint: false, 0, critical: true));
        request.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.DigitalSignature, critical: true));
        request.CertificateExtensions.Add(new X509EnhancedKeyUsageExtension([new Oid(ServerUse), new Oid(ClientUse)], critical: false));
        request.CertificateExtensions.Add(new X509SubjectKeyIdentifierExtension(request.PublicKey, critical: false));
        request.CertificateExtensions.Add(X509AuthorityKeyIdentifierExtension.CreateFromCertificate(_certificate, includeKeyIdentifier: true, includeIssuerAndSerial: false));
        request.CertificateExtensions.Add(host.ToAlternativeNames());
        DateTimeOffset now = DateTimeOffset.UtcNow;

        // Not before and no longer than the authority itself is good.
        long from = Math.Max((now - s_clockSkew).Ticks, ToUtc(_certificate.NotBefore).Ticks);
        long to = Math.Min(now.AddYears(HostYears).Ticks, Until.Ticks);
        using X509Certificate2 certificate = request.Create(_certificate, new DateTimeOffset(from, TimeSpan.Zero), new DateTimeOffset(to, TimeSpan.Zero), RandomNumberGenerator.GetBytes(SerialBytes));
        until = ToUtc(certificate.NotAfter);
        keyPem = key.ExportPkcs8PrivateKeyPem();
        return certificate.ExportCertificatePem();
    }

    /// <summary>Forgets the key.</summary>
    public void Dispose() => _certificate.Dispose();

    private static DateTimeOffset ToUtc(DateTime local) => new(local.ToUniversalTime());
}
