namespace Pageferry.Migration.Tests;

/// <summary>Files that can't be used are refused with what was tried, on which file, and what to do.</summary>
public sealed class MigrationSecurityTests : IDisposable
{
    private readonly TestCertificates _certificates = new();

    public MigrationSecurityTests() => _certificates.Sign("a", ["localhost"]);

    public void Dispose() => _certificates.Dispose();

    [Fact]
    public void Good_files_are_taken()
    {
        using MigrationSecurity security = _certificates.Load("a", "b.example");
        Assert.Equal("b.example", security.PeerName);
    }

    [Theory]
    [InlineData("missing.pem", "a-key.pem", "ca-cert.pem", "missing.pem", "no such file")]
    [InlineData("a-cert.pem", "missing.pem", "ca-cert.pem", "missing.pem", "no such file")]
    [InlineData("a-cert.pem", "a-key.pem", "nowhere/missing.pem", "missing.pem", "no such file")]
    [InlineData(".", "a-key.pem", "ca-cert.pem", "the certificate", "Could not read")]
    [InlineData("a-key.pem", "a-key.pem", "ca-cert.pem", "a-key.pem", "no certificate")]
    [InlineData("a-cert.pem", "a-cert.pem", "ca-cert.pem", "a-cert.pem", "no private key")]
    [InlineData("a-cert.pem", "encrypted.pem", "ca-cert.pem", "encrypted.pem", "encrypted")]
    [InlineData("a-cert.pem", "a-key.pem", "a-key.pem", "the authority", "no certificate")]
    [InlineData("a-cert.pem", "b-key.pem", "ca-cert.pem", "b-key.pem", "another certificate's key")]
    [InlineData("a-cert.pem", "cut-key.pem", "ca-cert.pem", "cut-key.pem", "damaged")]
    [InlineData("cut-cert.pem", "a-key.pem", "ca-cert.pem", "cut-cert.pem", "damaged")]
    [InlineData("/dev/zero", "a-key.pem", "ca-cert.pem", "/dev/zero", "no PEM file")]
    [InlineData("old-cert.pem", "old-key.pem", "ca-cert.pem", "old-cert.pem", "expired on")]
    [InlineData("server-cert.pem", "server-key.pem", "ca-cert.pem", "server-cert.pem", "is not for clients")]
    [InlineData("client-cert.pem", "client-key.pem", "ca-cert.pem", "client-cert.pem", "is not for servers")]
    [InlineData("a-cert.pem", "a-key.pem", "a-cert.pem", "a-cert.pem", "not signed by the authority")]
    public void What_can_not_be_used_is_named(string certificate, string key, string authority, string named, string why)
    {
        _certificates.Sign("b", ["localhost"]);
        _certificates.Sign("old", ["localhost"], TimeSpan.FromDays(-1));
        _certificates.Sign("server", ["localhost"], forClients: false);
        _certificates.Sign("client", ["localhost"], forServers: false);
        string text = File.ReadAllText(_certificates.Path("a-key.pem"));
        File.WriteAllText(_certificates.Path("encrypted.pem"), text.Replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY", StringComparison.Ordinal));
        File.WriteAllText(_certificates.Path("cut-key.pem"), text[..^40]);
        File.WriteAllText(_certificates.Path("cut-cert.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        MigrationSecurityException failure = Assert.Throws<MigrationSecurityException>(
            () => MigrationSecurity.Load(_certificates.Path(certificate), _certificates.Path(key), _certificates.Path(authority)));
        Assert.Contains(named, failure.Message, StringComparison.Ordinal);
        Assert.Contains(why, failure.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Another_authority_is_refused()
    {
        using var others = new TestCertificates();
        MigrationSecurityException failure = Assert.Throws<MigrationSecurityException>(() => _certificates.Load("a", authority: others.Authority));
        Assert.Contains("not signed by the authority", failure.Message, StringComparison.Ordinal);
        Assert.Contains(others.Authority, failure.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(UnixFileMode.OtherRead)]
    [InlineData(UnixFileMode.OtherWrite)]
    public void A_key_that_every_user_may_read_or_write_is_refused(UnixFileMode others)
    {
        string key = _certificates.Path("a-key.pem");
        File.SetUnixFileMode(key, File.GetUnixFileMode(key) | others);
        MigrationSecurityException failure = Assert.Throws<MigrationSecurityException>(() => _certificates.Load("a"));
        Assert.Contains($"chmod o= {key}", failure.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("")]
    [InlineData("no name")]
    [InlineData("a/b")]
    public void A_peer_that_has_no_name_is_refused(string name) =>
        Assert.Contains($"'{name}'", Assert.Throws<MigrationSecurityException>(() => _certificates.Load("a", name)).Message, StringComparison.Ordinal);
}
