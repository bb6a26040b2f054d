using System.Net;
using System.Net.Sockets;
using Pageferry.Memory;
using Pageferry.Migration;

namespace Pageferry.Bench;

/// <summary>One connection over loopback between two processes of the product's own page threads: the source's and the destination's.</summary>
internal static class PageLink
{
    /// <summary>That of a migration without pre-copy.</summary>
    private const uint Generation = 1;

    private const int HugePageBytes = 2 << 20;

    /// <summary>The command line of the source's process.</summary>
    public static string[] SourceCommand(string kind, int port, ulong pages) => Comparison.Ours("page-source", kind, $"{port}", $"{pages}");

    /// <summary>Serves pages of a memory that was written, on demand or in the background, until the destination has enough.</summary>
    public static int RunSource(string kind, int port, ulong pages)
    {
        using var memory = GuestMemory.Create(pages * Page.Size);
        byte[] content = [.. Enumerable.Repeat((byte)42, HugePageBytes)];
        for (ulong at = 0; at < pages * Page.Size; at += HugePageBytes)
        {
            memory.Write(at, content.AsSpan(0, (int)Math.Min(HugePageBytes, memory.Size - at)));
        }

        using var connection = new PeerConnection(new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp));
        connection.Socket.Connect(IPAddress.Loopback, port);
        var outgoing = new OutgoingPages(memory);
        outgoing.Pending.AddRun(0, pages);
        if (kind == "demand")
        {
            connection.SkipPacing();
            var server = new DemandServer(connection, outgoing, new MigrationCounters());
            server.SwitchOver(Generation);
            try
            {
                server.Serve();
            }
            catch (EndOfStreamException)
            {
                // The destination has what it wanted.
            }
        }
        else
        {
            OutgoingConnections.FitToLoopback(connection);
            using var sender = new BackgroundSender(connection, outgoing, 0, 1, MigrationCompression.None, new MigrationCounters());
            sender.Drain(Generation);
        }

        return 0;
    }

    /// <summary>The destination's end of the connection, after the switchover.</summary>
    public static PageReceiver Receiver(PeerConnection connection, FaultEngine engine, DemandRequester requester, ConnectionRole role)
    {
        var incoming = new IncomingPages(engine, new MigrationCounters(), requester, 1, digests: null);
        incoming.SwitchOver(Generation);
        return new PageReceiver(connection, incoming, role);
    }

    /// <summary>Starts a source and takes its connection.</summary>
    public static (PeerConnection Connection, Task Source) Connect(string kind, ulong pages)
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        string[] command = SourceCommand(kind, ((IPEndPoint)listener.LocalEndpoint).Port, pages);
        Task source = Task.Run(() => Comparison.Run(command));
        return (new PeerConnection(listener.AcceptSocket()), source);
    }
}
