using System.Net.Sockets;
using System.Threading.Channels;

namespace Pageferry.Cli;

/// <summary>
/// Takes the lazy-pages daemon's connection, on a Unix socket that only this user reaches, to the source, over whichever connection the source has made for it last. While there is none the daemon waits;
/// when the source comes back it is cut off, and asks again over its next connection.
/// </summary>
internal sealed class PageRelay : IDisposable
{
    private const int BufferBytes = 64 << 10;

    private readonly Socket _socket;
    private readonly ChannelReader<MoveConnection> _sources;
    private readonly CancellationTokenSource _ended = new();

    /// <summary>Listens for the daemon.</summary>
    /// <param name="path">The socket's path.</param>
    /// <param name="sources">The source's connections for pages.</param>
    internal PageRelay(string path, ChannelReader<MoveConnection> sources)
    {
        EndPoint = new UnixDomainSocketEndPoint(path);
        _sources = sources;
        _socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        _socket.Bind(EndPoint);
        _socket.Listen(1);
        _ = Task.Run(RelayAllAsync);
    }

    /// <summary>Where the daemon connects to.</summary>
    internal UnixDomainSocketEndPoint EndPoint { get; }

    /// <inheritdoc/>
    public void Dispose()
    {
        _ended.Cancel();
        _socket.Dispose();
    }

    private async Task RelayAllAsync()
    {
        while (!_ended.IsCancellationRequested)
        {
            try
            {
                await using var daemon = new NetworkStream(await _socket.AcceptAsync(_ended.Token), ownsSocket: true);
                await RelayAsync(daemon);
            }
            catch (Exception failure) when (failure is IOException or SocketException or OperationCanceledException or ObjectDisposedException)
            {
                // The daemon connects again, or the move is over.
            }
        }
    }

    private async Task RelayAsync(NetworkStream daemon)
    {
        using MoveConnection source = await _sources.ReadAsync(_ended.Token);
        using var cut = CancellationTokenSource.CreateLinkedTokenSource(_ended.Token);
        Task toSource = daemon.CopyToAsync(source.Stream, BufferBytes, cut.Token);
        Task toDaemon = source.Stream.CopyToAsync(daemon, BufferBytes, cut.Token);
        Task first = await Task.WhenAny(toSource, toDaemon);
        await cut.CancelAsync();

        // The source is gone, and no failure of the daemon's: it has nobody else to turn to.
        if (first == toDaemon || first.IsFaulted)
        {
            _ = await Task.WhenAny(_sources.WaitToReadAsync(_ended.Token).AsTask(), daemon.CopyToAsync(Stream.Null, _ended.Token));
        }
    }
}
