using System.Net;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace Pageferry.Migration.Tests;

/// <summary>An authority and what it signs, as PEM files in a directory that goes with it.</summary>
internal sealed class TestCertificates : IDisposable
{
    private const string ServerUse = "1.3.6.1.5.5.7.3.1";
    private const string ClientUse = "1.3.6.1.5.5.7.3.2";

    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("pageferry-test-");
    private readonly X509Certificate2 _authority;

    public TestCertificates()
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest($"CN=test authority {Guid.NewGuid()}", key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(certificateAuthority: true, hasPathLengthConstraint: false, 0, critical: true));
        _authority = request.CreateSelfSigned(DateTimeOffset.UtcNow.AddYears(-2), DateTimeOffset.UtcNow.AddYears(2));
        File.WriteAllText(Authority, _authority.ExportCertificatePem());
    }

    public string Authority => Path("ca-cert.pem");

    public string Path(string name) => System.IO.Path.Combine(_directory.FullName, name);

    /// <summary>Makes <c>FILE-cert.pem</c> and <c>FILE-key.pem</c>.</summary>
    public void Sign(string file, string[] names, TimeSpan? validFor = null, bool forClients = true, bool forServers = true)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest($"CN={file}", key, HashAlgorithmName.SHA256);
        var alternatives = new SubjectAlternativeNameBuilder();
        foreach (string name in names)
        {
            if (IPAddress.TryParse(name, out IPAddress? address))
            {
                alternatives.AddIpAddress(address);
            }
            else
            {
                alternatives.AddDnsName(name);
            }
        }

        request.CertificateExtensions.Add(alternatives.Build());
        OidCollection uses = [.. new[] { forServers ? ServerUse : null, forClients ? ClientUse : null }.OfType<string>().Select(use => new Oid(use))];
        request.CertificateExtensions.Add(new X509EnhancedKeyUsageExtension(uses, critical: false));
        DateTimeOffset from = DateTimeOffset.UtcNow.AddYears(-1);
        DateTimeOffset until = DateTimeOffset.UtcNow + (validFor ?? TimeSpan.FromDays(30));
        using X509Certificate2 certificate = request.Create(_authority, from, until, RandomNumberGenerator.GetBytes(16));
        File.WriteAllText(Path($"{file}-cert.pem"), certificate.ExportCertificatePem());
        File.WriteAllText(Path($"{file}-key.pem"), key.ExportPkcs8PrivateKeyPem());
        File.SetUnixFileMode(Path($"{file}-key.pem"), UnixFileMode.UserRead | UnixFileMode.UserWrite);
    }

    public MigrationSecurity Load(string file, string? peerName = null, string? authority = null) =>
        MigrationSecurity.Load(Path($"{file}-cert.pem"), Path($"{file}-key.pem"), authority ?? Authority, peerName);

    /// <summary>A certificate for loopback, and its security.</summary>
    public MigrationSecurity Make(string file, params string[] names)
    {
        Sign(file, names.Length > 0 ? names : ["localhost", "127.0.0.1", "::1"]);
        return Load(file);
    }

    public void Dispose()
    {
        _authority.Dispose();
        _directory.Delete(recursive: true);
    }
}
