using System.Net;
using System.Text;
using Pageferry.Memory;

namespace Pageferry.Migration.Tests;

public class LoopbackTests
{
    [Fact]
    public void Pages_are_not_paced_between_two_sides_of_one_host()
    {
        using var destination = new MigrationDestination(new IPEndPoint(IPAddress.Loopback, 0), layout => new TestGuest(GuestMemory.Create(layout.Regions)));
        _ = Task.Run(() => Record.Exception(() => destination.Receive(_ => { })));
        using var session = new OutgoingConnections(new MigrationOptions { Connections = 3 }, new MigrationCounters());
        session.Open(destination.EndPoint);
        Assert.All(session.All.Skip(1), connection => Assert.Equal("reno", CongestionOf(connection)));
    }

    private static string CongestionOf(PeerConnection connection)
    {
        const int IpProtocolTcp = 6;
        const int TcpCongestion = 13;
        var name = new byte[16];
        int bytes = connection.Socket.GetRawSocketOption(IpProtocolTcp, TcpCongestion, name);
        return Encoding.ASCII.GetString(name, 0, bytes).TrimEnd('\0');
    }
}
