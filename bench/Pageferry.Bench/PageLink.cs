using System.Net;
using System.Net.Sockets;
using Pageferry.Memory;
using Pageferry.Migration;

namespace Pageferry.Bench;

/// <summary>One connection over loopback between two processes of the product's own page threads: the source's and the destination's.</summary>
internal static class PageLink
{
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
        var server = new PageServer(memory, new MigrationCounters());
        if (kind == "demand")
        {
            try
            {
                server.ServeDemand(connection);
            }
            catch (EndOfStreamException)
            {
                // The destination has what it wanted.
            }
        }
        else
        {
            connection.Socket.SendBufferSize = MigrationSource.BackgroundQueueBytes;
            server.FillBackground(connection);
        }

        return 0;
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
