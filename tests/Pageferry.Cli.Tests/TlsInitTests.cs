using System.Globalization;
using System.Net;
using System.Security.Cryptography.X509Certificates;
using System.Text.Json;
using Pageferry.Migration;

namespace Pageferry.Cli.Tests;

public sealed class TlsInitTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    private string Tls => _directory.Path("tls");

    public void Dispose() => _directory.Dispose();

    [Fact]
    public async Task The_files_are_good_for_a_migration_and_for_the_names_they_were_made_for()
    {
        using PageferryProcess made = await InitAsync("--host", "a.example", "--host", "b.example,10.0.0.2,::1");
        Assert.Equal(0, made.ExitCode);
        MigrationSecurity.Load(File("a.example-cert.pem"), File("a.example-key.pem"), File("ca-cert.pem")).Dispose();
        MigrationSecurity.Load(File("b.example-cert.pem"), File("b.example-key.pem"), File("ca-cert.pem")).Dispose();
        using X509Certificate2 certificate = X509CertificateLoader.LoadCertificateFromFile(File("b.example-cert.pem"));
        X509SubjectAlternativeNameExtension names = certificate.Extensions.OfType<X509SubjectAlternativeNameExtension>().Single();
        Assert.Equal("b.example", Assert.Single(names.EnumerateDnsNames()));
        Assert.Equal([IPAddress.Parse("10.0.0.2"), IPAddress.IPv6Loopback], names.EnumerateIPAddresses());
        Assert.InRange(certificate.NotAfter, DateTime.Now.AddDays(360), DateTime.Now.AddDays(825));
    }

    [Fact]
    public async Task Keys_and_the_directory_are_their_owners_alone()
    {
        using PageferryProcess made = await InitAsync("--host", "a.example");
        const UnixFileMode Owner = UnixFileMode.UserRead | UnixFileMode.UserWrite;
        Assert.Equal(Owner, System.IO.File.GetUnixFileMode(File("ca-key.pem")));
        Assert.Equal(Owner, System.IO.File.GetUnixFileMode(File("a.example-key.pem")));
        Assert.Equal(Owner | UnixFileMode.UserExecute, System.IO.File.GetUnixFileMode(Tls));
    }

    [Fact]
    public async Task It_says_what_to_copy_and_the_two_commands()
    {
        using PageferryProcess made = await InitAsync("--host", "a.example", "--host", "b.example");
        Assert.Contains($"scp {File("ca-cert.pem")} {File("a.example-cert.pem")} {File("a.example-key.pem")} a.example:", made.Output, StringComparison.Ordinal);
        Assert.Contains("pageferry vm receive --listen 0.0.0.0:4444", made.Output, StringComparison.Ordinal);
        Assert.Contains("pageferry vm migrate --control a.sock --to b.example:4444", made.Output, StringComparison.Ordinal);
        Assert.Contains("--tls-key b.example-key.pem --tls-ca ca-cert.pem", made.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_authority_that_is_there_signs_for_more_hosts()
    {
        using PageferryProcess first = await InitAsync("--host", "a.example");
        string authority = await System.IO.File.ReadAllTextAsync(File("ca-cert.pem"));
        using PageferryProcess second = await InitAsync("--host", "b.example", "--json");
        Assert.Equal(0, second.ExitCode);
        JsonElement report = JsonDocument.Parse(second.Output).RootElement;
        Assert.True(report.GetProperty("ok").GetBoolean());
        Assert.False(report.GetProperty("ca_is_new").GetBoolean());
        Assert.Equal(File("b.example-key.pem"), report.GetProperty("hosts")[0].GetProperty("key").GetString());
        Assert.True(DateTimeOffset.Parse(report.GetProperty("hosts")[0].GetProperty("until").GetString()!, CultureInfo.InvariantCulture) > DateTimeOffset.Now);
        Assert.Equal(authority, await System.IO.File.ReadAllTextAsync(File("ca-cert.pem")));
        MigrationSecurity.Load(File("b.example-cert.pem"), File("b.example-key.pem"), File("ca-cert.pem")).Dispose();
    }

    [Theory]
    [InlineData("a.example-cert.pem")]
    [InlineData("a.example-key.pem")]
    public async Task Nothing_is_overwritten_and_then_nothing_is_written(string there)
    {
        Directory.CreateDirectory(Tls);
        await System.IO.File.WriteAllTextAsync(File(there), "precious");
        using PageferryProcess made = await InitAsync("--host", "a.example");
        Assert.Equal(1, made.ExitCode);
        Assert.Contains($"Could not make {File(there)}: it is there already", made.Errors, StringComparison.Ordinal);
        Assert.Equal("precious", await System.IO.File.ReadAllTextAsync(File(there)));
        Assert.Equal(File(there), Assert.Single(Directory.EnumerateFileSystemEntries(Tls)));
    }

    [Theory]
    [InlineData("ca-key.pem")]
    [InlineData("ca-cert.pem")]
    public async Task Half_an_authority_is_not_made_whole(string lost)
    {
        using PageferryProcess first = await InitAsync("--host", "a.example");
        System.IO.File.Delete(File(lost));
        using PageferryProcess second = await InitAsync("--host", "b.example");
        Assert.Equal(1, second.ExitCode);
        Assert.Contains("Could not sign with the authority", second.Errors, StringComparison.Ordinal);
        Assert.False(Path.Exists(File(lost)));
        Assert.False(Path.Exists(File("b.example-cert.pem")));
    }

    [Fact]
    public async Task What_is_no_authority_does_not_sign()
    {
        using PageferryProcess first = await InitAsync("--host", "a.example");
        System.IO.File.Move(File("a.example-cert.pem"), File("ca-cert.pem"), overwrite: true);
        System.IO.File.Move(File("a.example-key.pem"), File("ca-key.pem"), overwrite: true);
        using PageferryProcess second = await InitAsync("--host", "b.example");
        Assert.Equal(1, second.ExitCode);
        Assert.Contains("it is no authority's certificate", second.Errors, StringComparison.Ordinal);
    }

    private string File(string name) => Path.Combine(Tls, name);

    private Task<PageferryProcess> InitAsync(params string[] options) => PageferryProcess.RunAsync(["tls", "init", Tls, .. options]);
}
