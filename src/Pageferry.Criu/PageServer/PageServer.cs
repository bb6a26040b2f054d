using System.Net;
using System.Net.Sockets;
using Microsoft.Extensions.Logging;

namespace Pageferry.Criu;

/// <summary>
/// Serves the pages of images to any number of lazy restores at once: what <c>criu page-server --lazy-pages</c> does for one. The client's form of the protocol, of CRIU up to
/// 4.1 or from 4.2 on, is told by its first request. Clients are not authenticated.
/// </summary>
public sealed class PageServer : IDisposable
{
    private readonly PageServerListener _listener;
    private readonly Dictionary<ulong, ProcessPages> _processes;
    private long _pagesServed;
    private int _isDisposed;

    private PageServer(IPEndPoint listen, Dictionary<ulong, ProcessPages> processes, ILogger? logger)
    {
        _processes = processes;
        _listener = new PageServerListener(listen, connection => new LazySession(connection, processes, Count, logger).Serve(), logger);
        _listener.Start();
    }

    /// <summary>Where it listens.</summary>
    public IPEndPoint EndPoint => _listener.EndPoint;

    /// <summary>How many processes' pages it serves.</summary>
    public int Processes => _processes.Count;

    /// <summary>How many pages it has sent, to all clients together.</summary>
    public ulong PagesServed => (ulong)Interlocked.Read(ref _pagesServed);

    /// <summary>Opens images and begins to serve them.</summary>
    /// <param name="imagesDirectory">The directory that a dump wrote.</param>
    /// <param name="listen">Where to listen; port 0 for one that the kernel picks.</param>
    /// <param name="logger">Hears of clients; null for nobody.</param>
    /// <returns>The server, which the caller disposes.</returns>
    /// <exception cref="ImageException">An image is missing or makes no sense.</exception>
    /// <exception cref="SocketException">The port is in use, or the address is not one of this host.</exception>
    public static PageServer Start(string imagesDirectory, IPEndPoint listen, ILogger? logger = null)
    {
        var processes = new Dictionary<ulong, ProcessPages>();
        try
        {
            var images = ImageSet.Open(imagesDirectory);
            foreach (ProcessEntry process in images.ReadProcesses())
            {
                // What has ended, and only waits to be heard of, has no memory.
                if (images.HasMemory(process.Pid))
                {
                    images.ReadPagemap(process.Pid).CheckStored();
                    processes.Add((ulong)process.Pid, ProcessPages.Open(images, process.Pid));
                }
            }

            return processes.Count > 0
                ? new PageServer(listen, processes, logger)
                : throw new ImageException(Path.Combine(imagesDirectory, "pstree.img"), "tells of no process that has a pagemap here.");
        }
        catch
        {
            Close(processes);
            throw;
        }
    }

    /// <summary>Ends all connections and stops listening.</summary>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref _isDisposed, 1) == 0)
        {
            _listener.Dispose();
            Close(_processes);
        }
    }

    private static void Close(Dictionary<ulong, ProcessPages> processes)
    {
        foreach (ProcessPages pages in processes.Values)
        {
            pages.Dispose();
        }
    }

    private void Count(ulong pages) => Interlocked.Add(ref _pagesServed, (long)pages);
}
