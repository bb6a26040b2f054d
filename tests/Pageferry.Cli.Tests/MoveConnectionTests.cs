using System.Net;
using System.Net.Sockets;

namespace Pageferry.Cli.Tests;

public sealed class MoveConnectionTests
{
    /// <summary>What a peer begins with, and its Hello.</summary>
    private static readonly byte[] s_hello = [.. "pagecriu"u8, 1, 0, 0, 0, 47, 0, 0, 0, .. """{"version":1,"session":null,"for_pages":false }"""u8];

    [Fact]
    public async Task A_message_may_take_as_long_as_it_flows()
    {
        const int Pieces = 48;
        using var listening = new TcpListener(IPAddress.Loopback, 0);
        listening.Server.SendBufferSize = 16 << 10;
        listening.Start();
        using var peer = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { ReceiveBufferSize = 16 << 10 };
        await peer.ConnectAsync(listening.LocalEndpoint, TestContext.Current.CancellationToken);
        _ = await peer.SendAsync(s_hello, TestContext.Current.CancellationToken);
        (MoveConnection connection, _) = await MoveConnection.AcceptAsync(await listening.AcceptSocketAsync(TestContext.Current.CancellationToken), security: null, CancellationToken.None);
        using (connection)
        {
            Task<(MoveMessage Type, byte[] Payload)> received = connection.ReceiveAsync(CancellationToken.None);
            Task sent = connection.SendAsync(MoveMessage.Data, new byte[MoveConnection.MostBytes], CancellationToken.None);
            _ = await peer.SendAsync((byte[])[6, 0, 0, 0, .. BitConverter.GetBytes(MoveConnection.MostBytes)], TestContext.Current.CancellationToken);

            // A quarter of a second for each piece, both ways: longer than a connection may be silent.
            var piece = new byte[(MoveConnection.MostBytes / Pieces) + 1];
            for (int left = MoveConnection.MostBytes; left > 0; left -= piece.Length)
            {
                _ = await peer.SendAsync(piece.AsMemory(0, Math.Min(piece.Length, left)), TestContext.Current.CancellationToken);
                for (int taken = 0; taken < piece.Length && taken < left;)
                {
                    taken += await peer.ReceiveAsync(piece.AsMemory(taken, Math.Min(piece.Length, left) - taken), TestContext.Current.CancellationToken);
                }

                await Task.Delay(TimeSpan.FromMilliseconds(250), TestContext.Current.CancellationToken);
            }

            (MoveMessage type, byte[] payload) = await received;
            Assert.Equal(MoveMessage.Data, type);
            Assert.Equal(MoveConnection.MostBytes, payload.Length);
            _ = await peer.ReceiveAsync(new byte[64], TestContext.Current.CancellationToken);
            await sent;
        }
    }
}
