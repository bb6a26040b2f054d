using System.Net;
using System.Net.Sockets;
using System.Text;
using Pageferry.Memory;

namespace Pageferry.Migration.Tests;

/// <summary>Peers that speak the version before this one, byte for byte as that one had it: both sides part and name both versions, and the guest goes on.</summary>
public sealed class PreviousVersionTests : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    private readonly TestGuest _leaving = new(GuestMemory.Create(1 << 20));

    public PreviousVersionTests() => _leaving.Resume();

    public void Dispose() => _leaving.Dispose();

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public void A_source_of_an_older_version_is_told_both_versions(byte version)
    {
        using var destination = new MigrationDestination(new IPEndPoint(IPAddress.Loopback, 0), layout => new TestGuest(GuestMemory.Create(layout.Regions)));
        using var source = new TcpClient { ReceiveTimeout = (int)s_patience.TotalMilliseconds };
        source.Connect(destination.EndPoint);
        source.GetStream().Write([1, 0, 0, 0, 32, 0, 0, 0, .. "PAGEFERY"u8, version, 0, version, 0, 1, 0, 0, 0, .. new byte[16]]);
        using var answer = new MemoryStream();
        source.GetStream().CopyTo(answer);
        byte[] frame = answer.ToArray();
        string text = Encoding.UTF8.GetString(frame.AsSpan(PeerConnection.HeaderBytes));
        Assert.Equal([3, 0, 0, 0, (byte)text.Length, 0, 0, 0], frame[..PeerConnection.HeaderBytes]);
        Assert.Contains($"speaks protocol version {version}, this destination 3", text, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(1, true)]
    [InlineData(1, false)]
    [InlineData(2, true)]
    [InlineData(2, false)]
    public void A_destination_of_an_older_version_is_left_with_both_versions_named(byte version, bool says)
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        byte[] error = Encoding.UTF8.GetBytes($"The source speaks protocol version 3, this destination {version}: use builds that share one.");
        byte[] parting = [3, 0, 0, 0, (byte)error.Length, 0, 0, 0, .. error];
        byte[] welcome = [2, 0, 0, 0, 32, 0, 0, 0, .. "PAGEFERY"u8, version, 0, version, 0, version, 0, 0, 0, .. Guid.NewGuid().ToByteArray()];
        Task answering = Task.Run(() =>
        {
            using Socket destination = listener.AcceptSocket();
            var hello = new byte[PeerConnection.HeaderBytes + Hello.Bytes];
            for (int got = 0; got < hello.Length;)
            {
                got += destination.Receive(hello.AsSpan(got));
            }

            Assert.Equal([1, 0, 0, 0, 32, 0, 0, 0, .. "PAGEFERY"u8, 3, 0, 3, 0, 1], hello[..21]);
            _ = destination.Send(says ? parting : welcome);
            _ = destination.Receive(hello);
        });
        MigrationException failure = Assert.Throws<MigrationException>(() => new MigrationSource(_leaving).Run(listener.LocalEndpoint));
        Assert.False(failure.SwitchedOver);
        Assert.Matches($"version 3, this destination {version}|version {version} and chose {version}; this source speaks 3", failure.Message);
        Assert.True(answering.Wait(s_patience));
        Assert.True(_leaving.IsRunning);
    }

    [Theory]
    [InlineData(1, 3, 3, 4)]
    [InlineData(3, 4, 1, 3)]
    [InlineData(1, 3, 2, 3)]
    public void Peers_that_share_version_3_speak_it(ushort lowestHere, ushort highestHere, ushort lowestThere, ushort highestThere)
    {
        using var destination = new MigrationDestination(
            new IPEndPoint(IPAddress.Loopback, 0), layout => new TestGuest(GuestMemory.Create(layout.Regions)), versions: new VersionRange(lowestThere, highestThere));
        TestGuest? arrived = null;
        Task receiving = Task.Run(() => destination.Receive(guest => arrived = (TestGuest)guest));
        new MigrationSource(_leaving, new MigrationOptions { Versions = new VersionRange(lowestHere, highestHere), Validate = true }).Run(destination.EndPoint);
        Assert.True(receiving.Wait(s_patience));
        Assert.Equal(0, arrived!.Wrong);
        arrived.Dispose();
    }
}
