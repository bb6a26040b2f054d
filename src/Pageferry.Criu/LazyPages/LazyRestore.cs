using System.Net;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Pageferry.Linux;
using Pageferry.Memory;

namespace Pageferry.Criu;

/// <summary>Serves one <c>criu restore --lazy-pages</c>, in place of <c>criu lazy-pages</c>: takes the userfaultfds of the processes and brings their pages.</summary>
public sealed class LazyRestore : IDisposable
{
    private const string SocketName = "lazy-pages.socket";

    /// <summary>What restore sends when all processes run: "FTSR".</summary>
    private const uint RestoreFinished = 0x52535446;

    /// <summary>What the restore still does before a process runs, once it has said that it is finished; it is not to share the CPUs with the background then.</summary>
    private static readonly TimeSpan s_lastSteps = TimeSpan.FromMilliseconds(100);

    private readonly string _socketPath;
    private readonly UnixSocket _listening;
    private readonly Dictionary<int, List<GuestRegion>> _ranges;
    private readonly IContent _content;
    private readonly BackgroundFill _background;
    private readonly BandwidthLimit _limit;
    private readonly LazySummary _summary = new();
    private readonly ILogger _logger;
    private readonly ManualResetEventSlim _isRestored = new();
    private readonly List<Thread> _serving = [];
    private readonly Lock _adding = new();
    private readonly int _tasks;

    private LazyRestore(string socketPath, int tasks, Dictionary<int, List<GuestRegion>> ranges, IContent content, BackgroundFill background, long maxBandwidth, ILogger logger)
    {
        _tasks = tasks;
        _ranges = ranges;
        _content = content;
        _background = background;
        _limit = new BandwidthLimit(maxBandwidth);
        _logger = logger;
        _socketPath = socketPath;
        _listening = ListenAt(socketPath);
    }

    /// <summary>Reads the images and listens for a restore.</summary>
    /// <param name="imagesDirectory">The images that are restored.</param>
    /// <param name="workDirectory">Where <c>lazy-pages.socket</c> is made.</param>
    /// <param name="pageServer">Who has the pages, at an address or a Unix socket; null for the images.</param>
    /// <param name="background">Which pages to fetch that nobody waits for.</param>
    /// <param name="logger">Hears what happens; null for nobody.</param>
    /// <param name="maxBandwidth">The most bytes per second of pages that nobody waits for; 0 for as many as there can be.</param>
    /// <returns>The daemon, which the caller disposes.</returns>
    /// <exception cref="ImageException">An image is missing or makes no sense.</exception>
    /// <exception cref="LinuxException">The socket can't be made. EADDRINUSE: another daemon listens there.</exception>
    /// <exception cref="System.Net.Sockets.SocketException">The page server can't be reached.</exception>
    public static LazyRestore Listen(string imagesDirectory, string workDirectory, EndPoint? pageServer, BackgroundFill background, ILogger? logger = null, long maxBandwidth = 0)
    {
        var images = ImageSet.Open(imagesDirectory);
        FaultEngine.Rehearse();
        int[] pids = [.. images.ReadProcesses().Select(process => process.Pid)];
        var ranges = new Dictionary<int, List<GuestRegion>>();
        PageServerForm? form = null;
        foreach (int pid in pids)
        {
            if (images.HasMemory(pid))
            {
                Pagemap map = images.ReadPagemap(pid);
                form ??= map.Form;
                ranges[pid] = LazyRanges(map, images.ReadMemoryMap(pid));
            }
        }

        IContent content = pageServer is null
            ? new LocalContent(ranges.Keys.ToDictionary(pid => pid, pid => ProcessPages.Open(images, pid)))
            : RemoteContent.Connect(pageServer, form ?? PageServerForm.Header32, logger ?? NullLogger.Instance, RemoteContent.LongestSilence);
        try
        {
            return new LazyRestore(Path.Combine(workDirectory, SocketName), pids.Length, ranges, content, background, maxBandwidth, logger ?? NullLogger.Instance);
        }
        catch
        {
            content.Dispose();
            throw;
        }
    }

    /// <summary>Waits for the restore, and then until every page of every process is there, or the processes have ended.</summary>
    /// <returns>What it took.</returns>
    /// <exception cref="IOException">The restore broke off, or sent what makes no sense.</exception>
    public LazySummary Serve()
    {
        using UnixSocket restore = _listening.Accept();
        Span<byte> number = stackalloc byte[sizeof(int)];
        for (int task = 0; task < _tasks; task++)
        {
            ReceiveAll(restore, number);
            int pid = BitConverter.ToInt32(number);
            if (pid > 0)
            {
                Take(pid, ReceiveUserfaultfd(restore, pid));
            }
        }

        ReceiveAll(restore, number);
        if (BitConverter.ToUInt32(number) != RestoreFinished)
        {
            throw new PageServerException($"The restore sent 0x{BitConverter.ToUInt32(number):x8} instead of the news that it is finished: its tree is not that of pstree.img.");
        }

        _isRestored.Set();
        for (int i = 0; NextServing(i) is { } serving; i++)
        {
            serving.Join();
        }

        return _summary;
    }

    /// <summary>Stops listening.</summary>
    public void Dispose()
    {
        _listening.Dispose();
        File.Delete(_socketPath);
        _content.Dispose();
        _isRestored.Dispose();
    }

    private static UnixSocket ListenAt(string path)
    {
        if (File.Exists(path))
        {
            try
            {
                UnixSocket.Connect(path, UnixSocketType.Stream).Dispose();
                throw new LinuxException($"listen at {path}", Errno.EADDRINUSE, "Another lazy-pages daemon listens there: give each a work directory of its own.");
            }
            catch (LinuxException failure) when (failure.Errno == Errno.ECONNREFUSED)
            {
                File.Delete(path);
            }
        }

        return UnixSocket.Listen(path, UnixSocketType.Stream);
    }

    /// <summary>Pages may come together where they lie together in one mapping.</summary>
    private static List<GuestRegion> LazyRanges(Pagemap pages, MemoryMap memory)
    {
        var ranges = new List<GuestRegion>();
        int at = 0;
        foreach (PagemapEntry entry in pages.Entries.Where(entry => entry.Flags.HasFlag(PagemapFlags.Lazy)))
        {
            while (at < memory.Vmas.Count && memory.Vmas[at].End <= entry.Address)
            {
                at++;
            }

            for (int vma = at; vma < memory.Vmas.Count && memory.Vmas[vma].Start < entry.End; vma++)
            {
                ulong start = Math.Max(entry.Address, memory.Vmas[vma].Start);
                ulong end = Math.Min(entry.End, memory.Vmas[vma].End);
                if (ranges.Count > 0 && ranges[^1].End == start && start != memory.Vmas[vma].Start)
                {
                    ranges[^1] = ranges[^1] with { Length = end - ranges[^1].Gpa };
                }
                else
                {
                    ranges.Add(new GuestRegion(start, end - start));
                }
            }
        }

        return ranges;
    }

    private static Userfaultfd ReceiveUserfaultfd(UnixSocket restore, int pid)
    {
        Span<byte> carrier = stackalloc byte[1];
        var descriptors = new FileDescriptor?[1];
        return restore.Receive(carrier, descriptors, out int count) == 1 && count == 1
            ? Userfaultfd.FromDescriptor(descriptors[0]!)
            : throw new PageServerException($"The restore did not send the userfaultfd of process {pid}.");
    }

    private static void ReceiveAll(UnixSocket restore, Span<byte> bytes)
    {
        while (!bytes.IsEmpty)
        {
            int received = restore.Receive(bytes, [], out _);
            bytes = received > 0 ? bytes[received..] : throw new PageServerException("The restore broke off before it was finished. Its own log says why.");
        }
    }

    private void Take(int pid, Userfaultfd userfaultfd)
    {
        if (!_ranges.TryGetValue(pid, out List<GuestRegion>? ranges))
        {
            userfaultfd.Dispose();
            throw new PageServerException($"The restore has a process {pid}, and the images don't: it restores other images.");
        }

        var memory = GuestMemory.OfProcess(ranges, userfaultfd);
        LazyLog.Began(_logger, pid, memory.PageCount);
        Serve(new LazyProcess(pid, new FaultEngine(memory, _logger), _content, Serve));
    }

    /// <summary>Brings the pages of a process, by a thread of its own.</summary>
    private void Serve(LazyProcess process)
    {
        var serving = new Thread(() =>
        {
            _isRestored.Wait();
            process.AwaitTouch(s_lastSteps);
            try
            {
                process.Complete(_background, _limit);
            }
            catch (IOException failure)
            {
                LazyLog.Failed(_logger, failure.Message);
                process.Complete(BackgroundFill.None, _limit);
            }

            LazyLog.Ended(_logger, process.Pid, process.Statistics.DemandPages, process.Statistics.BackgroundPages);
            lock (_adding)
            {
                _summary.Add(process.Statistics);
            }

            process.Dispose();
        })
        { IsBackground = true, Name = $"pages of {process.Pid}" };
        lock (_adding)
        {
            _serving.Add(serving);
        }

        serving.Start();
    }

    private Thread? NextServing(int number)
    {
        lock (_adding)
        {
            return number < _serving.Count ? _serving[number] : null;
        }
    }
}
