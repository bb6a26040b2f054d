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

    [Fact]
    public void A_source_of_version_1_is_told_both_versions()
    {
        using var destination = new MigrationDestination(new IPEndPoint(IPAddress.Loopback, 0), layout => new TestGuest(GuestMemory.Create(layout.Regions)));
        using var source = new TcpClient { ReceiveTimeout = (int)s_patience.TotalMilliseconds };
        source.Connect(destination.EndPoint);
        source.GetStream().Write([1, 0, 0, 0, 32, 0, 0, 0, .. "PAGEFERY"u8, 1, 0, 1, 0, 1, 0, 0, 0, .. new byte[16]]);
        using var answer = new MemoryStream();
        source.GetStream().CopyTo(answer);
        byte[] frame = answer.ToArray();
        string text = Encoding.UTF8.GetString(frame.AsSpan(PeerConnection.HeaderBytes));
        Assert.Equal([3, 0, 0, 0, (byte)text.Length, 0, 0, 0], frame[..PeerConnection.HeaderBytes]);
        Assert.Contains("speaks protocol version 1, this destination 2", text, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_destination_of_version_1_is_left_with_both_versions_named(bool says)
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        byte[] error = Encoding.UTF8.GetBytes("The source speaks protocol version 2, this destination 1: use builds that share one.");
        byte[] parting = [3, 0, 0, 0, (byte)error.Length, 0, 0, 0, .. error];
        byte[] welcome = [2, 0, 0, 0, 32, 0, 0, 0, .. "PAGEFERY"u8, 1, 0, 1, 0, 1, 0, 0, 0, .. Guid.NewGuid().ToByteArray()];
        Task answering = Task.Run(() =>
        {
            using Socket destination = listener.AcceptSocket();
            var hello = new byte[PeerConnection.HeaderBytes + Hello.Bytes];
            Assert.Equal(hello.Length, destination.Receive(hello));
            Assert.Equal([1, 0, 0, 0, 32, 0, 0, 0, .. "PAGEFERY"u8, 2, 0, 2, 0, 1], hello[..21]);
            _ = destination.Send(says ? parting : welcome);
            _ = destination.Receive(hello);
        });
        MigrationException failure = Assert.Throws<MigrationException>(() => new MigrationSource(_leaving).Run(listener.LocalEndpoint));
        Assert.False(failure.SwitchedOver);
        Assert.Matches("version 2, this destination 1|version 1 and chose 1; this source speaks 2", failure.Message);
        Assert.True(answering.Wait(s_patience));
        Assert.True(_leaving.IsRunning);
    }

    [Theory]
    [InlineData(1, 2, 2, 3)]
    [InlineData(2, 3, 1, 2)]
    [InlineData(1, 2, 1, 2)]
    public void Peers_that_share_version_2_speak_it(ushort lowestHere, ushort highestHere, ushort lowestThere, ushort highestThere)
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
