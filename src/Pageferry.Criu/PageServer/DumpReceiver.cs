using System.Net;
using System.Net.Sockets;
using Microsoft.Extensions.Logging;

namespace Pageferry.Criu;

/// <summary>
/// Receives the pages of one dump and writes them as images: what <c>criu page-server</c> does for <c>criu dump --page-server</c>. The dump is not authenticated: the first that
/// begins one is it.
/// </summary>
public sealed class DumpReceiver : IDisposable
{
    /// <summary>How long removing what was written may take when it is disposed.</summary>
    private static readonly TimeSpan s_toEnd = TimeSpan.FromSeconds(10);

    private readonly PageServerListener _listener;
    private readonly string _imagesDirectory;
    private readonly ILogger? _logger;
    private readonly TaskCompletionSource<ReceivedDump> _end = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _isTaken;

    private DumpReceiver(string imagesDirectory, IPEndPoint listen, ILogger? logger)
    {
        _imagesDirectory = imagesDirectory;
        _logger = logger;
        _listener = new PageServerListener(listen, Receive, logger);
        _listener.Start();
    }

    /// <summary>Where it listens.</summary>
    public IPEndPoint EndPoint => _listener.EndPoint;

    /// <summary>
    /// Ends when a dump has ended: with what was received, when all of it was and the images are written; with an exception, when the dump broke off or the images could not be
    /// written, and then those that were begun are gone.
    /// </summary>
    public Task<ReceivedDump> Completion => _end.Task;

    /// <summary>Begins to wait for a dump.</summary>
    /// <param name="imagesDirectory">Where the images go; images of the same names are replaced.</param>
    /// <param name="listen">Where to listen; port 0 for one that the kernel picks.</param>
    /// <param name="logger">Hears of clients; null for nobody.</param>
    /// <returns>The receiver, which the caller disposes.</returns>
    /// <exception cref="DirectoryNotFoundException">There is no such directory.</exception>
    /// <exception cref="SocketException">The port is in use, or the address is not one of this host.</exception>
    public static DumpReceiver Start(string imagesDirectory, IPEndPoint listen, ILogger? logger = null) => Directory.Exists(imagesDirectory)
        ? new DumpReceiver(imagesDirectory, listen, logger)
        : throw new DirectoryNotFoundException($"Could not receive a dump into {imagesDirectory}: there is no such directory. Make it first.");

    /// <summary>Whether a dump has begun.</summary>
    public bool HasBegun => Volatile.Read(ref _isTaken) != 0;

    /// <summary>Stops listening; a dump that is under way breaks off, and what was written of it is removed.</summary>
    public void Dispose()
    {
        _listener.Dispose();
        if (HasBegun)
        {
            _ = Task.WaitAny([_end.Task], s_toEnd);
        }

        _ = _end.TrySetCanceled();
    }

    private void Receive(PageServerConnection connection)
    {
        using var images = new ReceivedImages(_imagesDirectory);
        var session = new DumpSession(connection, images, TakeTurn, _logger);
        try
        {
            session.Receive();
            _ = _end.TrySetResult(new ReceivedDump(images.Pagemaps, images.Pages));
        }
        catch (Exception failure) when (session.HasBegun && failure is IOException or SocketException or UnauthorizedAccessException or ObjectDisposedException)
        {
            images.Dispose();
            _ = _end.TrySetException(failure);
            throw;
        }
    }

    /// <summary>The first that begins is the dump; others are told to go.</summary>
    private bool TakeTurn() => Interlocked.Exchange(ref _isTaken, 1) == 0;
}
