using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;

namespace Pageferry.Migration.Tests;

/// <summary>Stands between a source and a destination and changes a byte of the content of one frame of pages in so many.</summary>
internal sealed class DamagingProxy : IDisposable
{
    private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
    private readonly EndPoint _target;
    private readonly int _oneIn;
    private int _frames;
    private int _damaged;

    public DamagingProxy(EndPoint target, int oneIn)
    {
        _target = target;
        _oneIn = oneIn;
        _listener.Start();
        Start(() =>
        {
            while (true)
            {
                Socket source = _listener.AcceptSocket();
                var destination = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
                destination.Connect(_target);
                Start(() => PumpFrames(source, destination));
                Start(() => Pump(destination, source));
            }
        });
    }

    public EndPoint EndPoint => _listener.LocalEndpoint;

    /// <summary>How many frames were damaged.</summary>
    public int Damaged => Volatile.Read(ref _damaged);

    public void Dispose() => _listener.Dispose();

    private static void Start(Action work) => new Thread(() =>
    {
        try
        {
            work();
        }
        catch (Exception failure) when (failure is IOException or SocketException or ObjectDisposedException)
        {
            // Over.
        }
    })
    { IsBackground = true }.Start();

    private static void Pump(Socket from, Socket to)
    {
        using var source = new NetworkStream(from);
        using var destination = new NetworkStream(to);
        source.CopyTo(destination);
        to.Shutdown(SocketShutdown.Send);
    }

    private void PumpFrames(Socket from, Socket to)
    {
        using var source = new NetworkStream(from);
        var header = new byte[PeerConnection.HeaderBytes];
        while (source.ReadAtLeast(header, header.Length, throwOnEndOfStream: false) == header.Length)
        {
            var payload = new byte[BinaryPrimitives.ReadInt32LittleEndian(header.AsSpan(4))];
            source.ReadExactly(payload);
            bool isPages = BinaryPrimitives.ReadUInt16LittleEndian(header) == (ushort)MessageType.Pages && payload.Length > PageBatch.Bytes;
            if (isPages && Interlocked.Increment(ref _frames) is var frame && frame % _oneIn == 0)
            {
                payload[PageBatch.Bytes + (frame * 7919 % (payload.Length - PageBatch.Bytes))] ^= 0x10;
                _ = Interlocked.Increment(ref _damaged);
            }

            _ = to.Send([.. header, .. payload]);
        }

        to.Shutdown(SocketShutdown.Send);
    }
}
