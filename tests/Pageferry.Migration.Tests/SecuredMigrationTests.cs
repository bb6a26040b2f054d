using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using Pageferry.Memory;

namespace Pageferry.Migration.Tests;

/// <summary>Guests that move under TLS, and those that don't because one side does not trust the other: they go on where they are.</summary>
public sealed class SecuredMigrationTests : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    private readonly TestCertificates _certificates = new();
    private readonly TestCertificates _strangers = new();
    private readonly LogLines _log = new();

    public void Dispose()
    {
        _certificates.Dispose();
        _strangers.Dispose();
    }

    [Theory]
    [InlineData(GuestBacking.Memfd, GuestBacking.Anonymous)]
    [InlineData(GuestBacking.Anonymous, GuestBacking.Memfd)]
    public void A_running_guest_moves_under_TLS(GuestBacking from, GuestBacking to)
    {
        using MigrationSecurity a = _certificates.Make("a");
        using MigrationSecurity b = _certificates.Make("b");
        AssertMoves(a, b, 64 << 20, from, to);
    }

    [Fact]
    public void The_name_that_is_asked_for_need_not_be_the_address()
    {
        _certificates.Sign("a", ["a.example"]);
        _certificates.Sign("b", ["b.example"]);
        using MigrationSecurity a = _certificates.Load("a", peerName: "b.example");
        using MigrationSecurity b = _certificates.Load("b", peerName: "a.example");
        AssertMoves(a, b, 4 << 20);
    }

    [Fact]
    public void A_destination_of_another_name_is_refused_on_both_sides()
    {
        using MigrationSecurity a = _certificates.Make("a");
        using MigrationSecurity b = _certificates.Make("b", "b.example");
        AssertRefused(a, b, ["The source refuses the destination", "is for b.example, not for 127.0.0.1"], ["The source refuses the destination"]);
    }

    [Fact]
    public void A_source_of_another_name_is_refused_on_both_sides()
    {
        using MigrationSecurity a = _certificates.Make("a", "a.example");
        _certificates.Sign("b", ["127.0.0.1"]);
        using MigrationSecurity b = _certificates.Load("b", peerName: "c.example");
        AssertRefused(
            a, b, ["The destination refuses the source", "is for a.example, not for c.example"], ["The destination refuses the source", "not for c.example"]);
    }

    [Fact]
    public void A_destination_of_another_authority_is_refused_on_both_sides()
    {
        using MigrationSecurity a = _certificates.Make("a");
        using MigrationSecurity b = _strangers.Make("b");

        // Each refuses the other, and says so.
        AssertRefused(a, b, ["The source refuses the destination", "not signed by the authority"], ["The destination refuses the source", "not signed by the authority"]);
    }

    [Fact]
    public void A_source_of_another_authority_is_refused_on_both_sides()
    {
        // It trusts the destination's authority, but is signed by its own.
        using MigrationSecurity a = Mixed(_strangers);
        using MigrationSecurity b = _certificates.Make("b");
        AssertRefused(
            a, b, ["The destination refuses the source", "not signed by the authority"], ["The destination refuses the source", "not signed by the authority"]);
    }

    [Fact]
    public void A_source_without_TLS_is_refused_on_both_sides()
    {
        using MigrationSecurity b = _certificates.Make("b");
        AssertRefused(null, b, ["takes sources under TLS only", "--tls-cert"], ["takes sources under TLS only"]);
    }

    [Fact]
    public void A_source_with_TLS_is_refused_by_a_destination_without()
    {
        using MigrationSecurity a = _certificates.Make("a");
        AssertRefused(a, null, ["There is no TLS with this destination", "was it started with --tls-cert"], ["The source speaks TLS, this destination doesn't"]);
    }

    [Fact]
    public void A_certificate_that_expired_since_it_was_loaded_is_refused_on_both_sides()
    {
        _certificates.Sign("a", ["127.0.0.1"], TimeSpan.FromSeconds(1));
        using MigrationSecurity a = _certificates.Load("a");
        using MigrationSecurity b = _certificates.Make("b");
        Thread.Sleep(TimeSpan.FromSeconds(2));
        AssertRefused(a, b, ["The destination refuses the source", "is valid from"], ["The destination refuses the source", "is valid from"]);
        AssertRefused(b, a, ["The source refuses the destination", "is valid from"], ["The source refuses the destination"]);
    }

    [Fact]
    public async Task A_source_that_shows_no_certificate_is_told_so_and_nothing_else()
    {
        using MigrationSecurity b = _certificates.Make("b");
        using MigrationDestination destination = Waiting(b);
        using var client = new TcpClient();
        await client.ConnectAsync(destination.EndPoint);
        using var stream = new SslStream(client.GetStream(), leaveInnerStreamOpen: false, (_, _, _, _) => true);
        await stream.AuthenticateAsClientAsync("localhost");
        var text = new StreamReader(stream);
        Assert.Contains("The destination refuses the source: it showed no certificate", await text.ReadToEndAsync().WaitAsync(s_patience), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Nothing_older_than_TLS_1_3_is_spoken()
    {
        using MigrationSecurity b = _certificates.Make("b");
        using MigrationDestination destination = Waiting(b);
        using var client = new TcpClient();
        await client.ConnectAsync(destination.EndPoint);
        using var stream = new SslStream(client.GetStream(), leaveInnerStreamOpen: false, (_, _, _, _) => true);
        var options = new SslClientAuthenticationOptions { TargetHost = "localhost", EnabledSslProtocols = SslProtocols.Tls12 };
        _ = await Assert.ThrowsAnyAsync<Exception>(() => stream.AuthenticateAsClientAsync(options).WaitAsync(s_patience));
        Assert.True(SpinWait.SpinUntil(() => _log.Lines.Any(line => line.Contains("There is no TLS with this source", StringComparison.Ordinal)), s_patience));
    }

    [Fact]
    public void Strangers_do_not_delay_a_migration_under_TLS()
    {
        using MigrationSecurity a = _certificates.Make("a");
        using MigrationSecurity b = _certificates.Make("b");
        using var leaving = new TestGuest(GuestMemory.Create(4 << 20));
        leaving.Resume();
        TestGuest? arrived = null;
        using var destination = new MigrationDestination(
            new IPEndPoint(IPAddress.Loopback, 0), layout => new TestGuest(GuestMemory.Create(layout.Regions), layout.GuestId), _log, security: b);
        Task receiving = Task.Run(() => destination.Receive(guest => arrived = (TestGuest)guest));
        var strangers = new List<TcpClient>();
        foreach (byte[] words in (byte[][])[[], [0x16], [0x16, 3, 1, 2, 0, 1], [0x16, 3, 1, 0xff, 0xff, .. new byte[2000]], "GET / HTTP/1.1\r\n\r\n"u8.ToArray(), new byte[100]])
        {
            var stranger = new TcpClient();
            stranger.Connect(destination.EndPoint);
            stranger.GetStream().Write(words);
            strangers.Add(stranger);
        }

        long before = Environment.TickCount64;
        new MigrationSource(leaving, new MigrationOptions { Security = a }).Run(destination.EndPoint);
        Assert.True(receiving.Wait(s_patience));
        Assert.InRange(Environment.TickCount64 - before, 0, 5000);
        strangers.ForEach(stranger => stranger.Dispose());
        using TestGuest guest = arrived!;
        ulong round = guest.Round;
        Assert.True(SpinWait.SpinUntil(() => guest.Round > round + 1, s_patience));
        Assert.Equal(0, guest.Wrong);
    }

    [Fact]
    public void Beyond_loopback_without_TLS_is_refused_at_the_source()
    {
        using var leaving = new TestGuest(GuestMemory.Create(4 << 20));
        foreach (EndPoint beyond in (EndPoint[])[new IPEndPoint(IPAddress.Parse("192.0.2.1"), 4444), new DnsEndPoint("192.0.2.1", 4444)])
        {
            MigrationException failure = Assert.Throws<MigrationException>(() => new MigrationSource(leaving).Run(beyond));
            Assert.Contains("192.0.2.1:4444 is beyond loopback", failure.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void A_host_name_is_resolved()
    {
        using var leaving = new TestGuest(GuestMemory.Create(4 << 20));
        using MigrationSecurity a = _certificates.Make("a", "a.example");
        using MigrationSecurity b = _certificates.Make("b", "localhost");
        using var destination = new MigrationDestination(
            new IPEndPoint(IPAddress.Loopback, 0), layout => new TestGuest(GuestMemory.Create(layout.Regions), layout.GuestId), security: b);
        TestGuest? arrived = null;
        Task receiving = Task.Run(() => destination.Receive(guest => arrived = (TestGuest)guest));
        leaving.Resume();
        new MigrationSource(leaving, new MigrationOptions { Security = a }).Run(new DnsEndPoint("localhost", destination.EndPoint.Port));
        Assert.True(receiving.Wait(s_patience));
        arrived!.Dispose();
    }

    private MigrationDestination Waiting(MigrationSecurity security) => new(
        new IPEndPoint(IPAddress.Loopback, 0), _ => throw new InvalidOperationException("Nobody is to get this far."), _log, security: security);

    private MigrationSecurity Mixed(TestCertificates signer)
    {
        signer.Sign("mixed", ["127.0.0.1"]);

        // What is loaded has to be signed by what it trusts, so it trusts both.
        string both = signer.Path("both.pem");
        File.WriteAllText(both, File.ReadAllText(signer.Authority) + '\n' + File.ReadAllText(_certificates.Authority));
        return signer.Load("mixed", authority: both);
    }

    private static void AssertMoves(MigrationSecurity a, MigrationSecurity b, ulong size, GuestBacking from = GuestBacking.Memfd, GuestBacking to = GuestBacking.Memfd)
    {
        using var leaving = new TestGuest(GuestMemory.Create(size, from));
        leaving.Resume();
        Assert.True(SpinWait.SpinUntil(() => leaving.Round > 2, s_patience));
        using var destination = new MigrationDestination(
            new IPEndPoint(IPAddress.Loopback, 0), layout => new TestGuest(GuestMemory.Create(layout.Regions, to), layout.GuestId), security: b);
        TestGuest? arrived = null;
        Task receiving = Task.Run(() => destination.Receive(guest => arrived = (TestGuest)guest));
        var source = new MigrationSource(leaving, new MigrationOptions { Security = a });
        source.Run(destination.EndPoint);
        Assert.True(receiving.Wait(s_patience));
        using TestGuest guest = arrived!;
        ulong round = guest.Round;
        Assert.True(SpinWait.SpinUntil(() => guest.Round > round + 3, s_patience));
        Assert.Equal(0, leaving.Wrong + guest.Wrong);
        Assert.Equal(MigrationPhase.Completed, source.Progress.Phase);
        Assert.Equal(MigrationPhase.Completed, destination.Progress.Phase);
    }

    /// <summary>The guest goes on at the source, and the destination waits on.</summary>
    private void AssertRefused(MigrationSecurity? a, MigrationSecurity? b, string[] here, string[] there)
    {
        using var leaving = new TestGuest(GuestMemory.Create(4 << 20));
        leaving.Resume();
        using var destination = new MigrationDestination(
            new IPEndPoint(IPAddress.Loopback, 0), layout => new TestGuest(GuestMemory.Create(layout.Regions), layout.GuestId), _log, security: b);
        Task receiving = Task.Run(() => destination.Receive(_ => { }));
        MigrationException failure = Assert.Throws<MigrationException>(() => new MigrationSource(leaving, new MigrationOptions { Security = a }).Run(destination.EndPoint));
        Assert.False(failure.SwitchedOver);
        Assert.All(here, part => Assert.Contains(part, failure.Message, StringComparison.Ordinal));
        Assert.True(SpinWait.SpinUntil(() => _log.Lines.Any(line => there.All(part => line.Contains(part, StringComparison.Ordinal))), s_patience), string.Join('\n', _log.Lines));
        ulong round = leaving.Round;
        Assert.True(SpinWait.SpinUntil(() => leaving.Round > round, s_patience));
        Assert.Equal(0, leaving.Pauses);
        Assert.Equal(MigrationPhase.Waiting, destination.Progress.Phase);
        Assert.False(receiving.IsCompleted);
        TestContext.Current.TestOutputHelper?.WriteLine($"source: {failure.Message}\ndestination: {string.Join('\n', _log.Lines)}");
    }
}
