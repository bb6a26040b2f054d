using System.Net;
using System.Net.Sockets;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Pageferry.Linux;
using Pageferry.Memory;

namespace Pageferry.Criu;

/// <summary>Serves one <c>criu restore --lazy-pages</c>, in place of <c>criu lazy-pages</c>: takes the userfaultfds of the processes and brings their pages.</summary>
public sealed class LazyRestore : IDisposable
{
    private const string SocketName = "lazy-pages.socket";

    /// <summary>The most pages of a process, 8 TiB of them.</summary>
    private const ulong MostPages = 1UL << 31;

    /// <summary>What the restore still does before a process runs, once it has said that it is finished; it is not to share the CPUs with the background then.</summary>
    private static readonly TimeSpan s_lastSteps = TimeSpan.FromMilliseconds(100);

    private readonly string _socketPath;
    private readonly Dictionary<int, List<GuestRegion>> _ranges;
    private readonly IContent _content;
    private readonly RemoteContent? _remote;
    private readonly BackgroundFill _background;
    private readonly BandwidthLimit _limit;
    private readonly LazySummary _summary = new();
    private readonly ILogger _logger;
    private readonly KeptRestore? _kept;
    private readonly ManualResetEventSlim _isRestored = new();
    private readonly TaskCompletionSource _handedOver = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly List<Thread> _serving = [];
    private readonly HashSet<int> _taken = [];
    private readonly Lock _adding = new();
    private readonly int _tasks;

    /// <summary>Where restores connect, and the one that did: null when all is handed over.</summary>
    private UnixSocket? _listening;
    private UnixSocket? _restore;
    private bool _isResumed;
    private volatile bool _isConnected;
    private volatile bool _isEnding;
    private volatile bool _isUnwanted;

    private LazyRestore(string imagesDirectory, string workDirectory, EndPoint? pageServer, BackgroundFill background, ILogger? logger, long maxBandwidth, IRestoreKeeper? keeper)
    {
        var images = ImageSet.Open(imagesDirectory);
        FaultEngine.Rehearse();
        int[] pids = [.. images.ReadProcesses().Select(process => process.Pid)];
        _ranges = [];
        PageServerForm? form = null;
        foreach (int pid in pids)
        {
            if (images.HasMemory(pid))
            {
                Pagemap map = images.ReadPagemap(pid);
                form ??= map.Form;
                if (pageServer is null)
                {
                    map.CheckStored();
                }

                _ranges[pid] = LazyRanges(map, images.ReadMemoryMap(pid));
                if (_ranges[pid].Aggregate(0UL, static (sum, range) => sum + (range.Length / Page.Size)) is > MostPages and var pages)
                {
                    throw new ImageException(map.File, $"tells of {pages} pages that come later: more than {MostPages} can't be brought to a process.");
                }
            }
        }

        _tasks = pids.Length;
        _socketPath = SocketPathIn(workDirectory);
        _background = background;
        _limit = new BandwidthLimit(maxBandwidth);
        _logger = logger ?? NullLogger.Instance;
        _kept = keeper is null ? null : new KeptRestore(keeper, _logger);
        if (pageServer is not null && RemoteContent.IsRefused(pageServer))
        {
            throw new SocketException((int)SocketError.ConnectionRefused);
        }

        _remote = pageServer is null ? null : new RemoteContent(pageServer, form ?? PageServerForm.Header32, _logger, RemoteContent.LongestSilence);
        _content = (IContent?)_remote ?? new LocalContent(_ranges.Keys.ToDictionary(pid => pid, pid => ProcessPages.Open(images, pid)));
    }

    /// <summary>Where a restore looks for its daemon.</summary>
    /// <param name="workDirectory">The restore's work directory.</param>
    public static string SocketPathIn(string workDirectory) => Path.Combine(workDirectory, SocketName);

    /// <summary>Completes when the restore has said that it is finished: it says so before any of its processes runs.</summary>
    public Task HandedOver => _handedOver.Task;

    /// <summary>Reads the images and listens for a restore.</summary>
    /// <param name="imagesDirectory">The images that are restored.</param>
    /// <param name="workDirectory">Where <c>lazy-pages.socket</c> is made.</param>
    /// <param name="pageServer">Who has the pages, at an address or a Unix socket; null for the images.</param>
    /// <param name="background">Which pages to fetch that nobody waits for.</param>
    /// <param name="logger">Hears what happens; null for nobody.</param>
    /// <param name="maxBandwidth">The most bytes per second of pages that nobody waits for; 0 for as many as there can be.</param>
    /// <param name="keeper">Keeps all that is needed to go on if this process dies; null for nobody.</param>
    /// <returns>The daemon, which the caller disposes.</returns>
    /// <exception cref="ImageException">An image is missing or makes no sense.</exception>
    /// <exception cref="LinuxException">The socket can't be made. EADDRINUSE: another daemon listens there.</exception>
    /// <exception cref="SocketException">Nothing listens at the page server's address, which is seen here on loopback alone.</exception>
    /// <exception cref="IOException">The keeper does not keep it.</exception>
    public static LazyRestore Listen(
        string imagesDirectory, string workDirectory, EndPoint? pageServer, BackgroundFill background, ILogger? logger = null, long maxBandwidth = 0, IRestoreKeeper? keeper = null)
    {
        var restore = new LazyRestore(imagesDirectory, workDirectory, pageServer, background, logger, maxBandwidth, keeper);
        try
        {
            restore._listening = ListenAt(restore._socketPath);
            restore._kept?.KeepSockets(restore._listening.Descriptor);
            return restore;
        }
        catch
        {
            restore.Dispose();
            throw;
        }
    }

    /// <summary>Goes on with a restore that another process served and that died: from what was kept of it.</summary>
    /// <param name="imagesDirectory">The images that are restored.</param>
    /// <param name="workDirectory">Where <c>lazy-pages.socket</c> is.</param>
    /// <param name="pageServer">Who has the pages, at an address or a Unix socket; null for the images.</param>
    /// <param name="background">Which pages to fetch that nobody waits for.</param>
    /// <param name="logger">Hears what happens; null for nobody.</param>
    /// <param name="maxBandwidth">The most bytes per second of pages that nobody waits for; 0 for as many as there can be.</param>
    /// <param name="keeper">Keeps it on.</param>
    /// <param name="record">What was kept beside the descriptors.</param>
    /// <param name="descriptors">What was kept, owned by the restore from now on, also when this fails.</param>
    /// <returns>The daemon, which the caller disposes.</returns>
    /// <exception cref="ImageException">An image is missing or makes no sense.</exception>
    /// <exception cref="InvalidDataException">What was kept is of another form, damaged, or not of these images. Nothing has changed of it.</exception>
    /// <exception cref="SocketException">The page server can't be reached.</exception>
    public static LazyRestore Resume(
        string imagesDirectory,
        string workDirectory,
        EndPoint? pageServer,
        BackgroundFill background,
        ILogger? logger,
        long maxBandwidth,
        IRestoreKeeper keeper,
        ReadOnlySpan<byte> record,
        ReadOnlySpan<FileDescriptor> descriptors)
    {
        LazyRestore? restore = null;
        try
        {
            int sockets = KeptRestore.ReadSockets(record, descriptors.Length);
            restore = new LazyRestore(imagesDirectory, workDirectory, pageServer, background, logger, maxBandwidth, keeper) { _isResumed = true };
            restore._listening = sockets > 0 ? UnixSocket.FromDescriptor(descriptors[0]) : null;
            restore._restore = sockets > 1 ? UnixSocket.FromDescriptor(descriptors[1]) : null;
            restore.TakeUp(descriptors[sockets..]);
            return restore;
        }
        catch
        {
            foreach (FileDescriptor descriptor in descriptors)
            {
                descriptor.Dispose();
            }

            restore?.Part();
            throw;
        }
    }

    /// <summary>Waits for the restore, and then until every page of every process is there, or the processes have ended.</summary>
    /// <returns>What it took.</returns>
    /// <exception cref="IOException">The restore broke off, or sent what makes no sense.</exception>
    /// <exception cref="SocketException">The page server can't be reached, and no process runs.</exception>
    public LazySummary Serve()
    {
        if (_listening is { } listening)
        {
            using UnixSocket restore = _restore ?? Accept(listening);
            TakeAll(restore);
        }

        _handedOver.SetResult();
        _isRestored.Set();
        for (int i = 0; NextServing(i) is { } serving; i++)
        {
            serving.Join();
        }

        return _summary;
    }

    /// <summary>
    /// Asks for the end; from any thread. Once a restore is connected its processes would read zeros for what is missing if this process ended: unless that is kept, all of it is fetched first, and
    /// <see cref="Serve()"/> returns then.
    /// </summary>
    /// <returns>Whether this process may end at once, since nobody loses anything by it.</returns>
    public bool TryEnd()
    {
        if (_kept is not null)
        {
            _remote?.GiveUp();
            return true;
        }

        if (!_isConnected)
        {
            _remote?.GiveUp();
            File.Delete(_socketPath);
            return true;
        }

        LazyLog.Ending(_logger);
        _isEnding = true;
        return false;
    }

    /// <summary>Has <see cref="Serve()"/> end with an error if no restore is connected, since none will come; from any thread.</summary>
    /// <exception cref="LinuxException">The daemon does not listen any more.</exception>
    public void EndWaiting()
    {
        _isUnwanted = true;
        UnixSocket.Connect(_socketPath, UnixSocketType.Stream).Dispose();
    }

    /// <summary>Stops listening. What is kept of the restore is forgotten.</summary>
    public void Dispose()
    {
        _kept?.Dispose();
        if (_listening is not null || _isResumed)
        {
            File.Delete(_socketPath);
        }

        Part();
    }

    /// <summary>Frees what is this process's.</summary>
    private void Part()
    {
        _listening?.Dispose();
        _restore?.Dispose();
        _content.Dispose();
        _isRestored.Dispose();
    }

    /// <summary>Waits for the restore. Who only looks whether somebody listens, as another daemon does, is none.</summary>
    private UnixSocket Accept(UnixSocket listening)
    {
        Span<byte> first = stackalloc byte[1];
        var descriptors = new FileDescriptor?[1];
        while (true)
        {
            UnixSocket restore = listening.Accept();
            _kept?.KeepSockets(listening.Descriptor, restore.Descriptor);
            int bytes = restore.Peek(first, descriptors, out int count);
            if (count > 0)
            {
                descriptors[0]!.Dispose();
            }

            if (bytes > 0)
            {
                _isConnected = true;
                return restore;
            }

            _kept?.KeepSockets(listening.Descriptor);
            restore.Dispose();
            if (_isUnwanted)
            {
                throw new PageServerException("No restore came.");
            }
        }
    }

    /// <summary>
    /// Takes all processes. What a process is told with is received when the process is kept: as long as it is not, it lies in the socket, which is kept too.
    /// </summary>
    private void TakeAll(UnixSocket restore)
    {
        for (int tasks = 0; ; tasks++)
        {
            int pid = TaskHandover.Peek(restore, out FileDescriptor? userfaultfd);
            bool isEnd = pid == TaskHandover.Finished;
            if (isEnd ? tasks < _tasks && !_isResumed : tasks == _tasks)
            {
                userfaultfd?.Dispose();
                throw new PageServerException($"The restore sent 0x{pid:x8} after {tasks} processes, and the images have {_tasks}: its tree is not that of pstree.img.");
            }

            if (userfaultfd is not null)
            {
                Take(pid, userfaultfd);
            }

            if (isEnd)
            {
                _remote?.EndHandover();

                // Not after it is received: who takes over then would wait for it.
                _kept?.EndHandover();
            }

            TaskHandover.Receive(restore, hasUserfaultfd: userfaultfd is not null);
            if (isEnd)
            {
                return;
            }
        }
    }

    private static UnixSocket ListenAt(string path)
    {
        if (File.Exists(path))
        {
            try
            {
                UnixSocket.Connect(path, UnixSocketType.Stream).Dispose();
                throw new LinuxException(
                    $"listen at {path}", Errno.EADDRINUSE, "Another lazy-pages daemon listens there, or a holder keeps what one left: give each a work directory of its own, or go on with --resume.");
            }
            catch (LinuxException failure) when (failure.Errno == Errno.ECONNREFUSED)
            {
                File.Delete(path);
            }
        }

        try
        {
            return UnixSocket.Listen(path, UnixSocketType.Stream);
        }
        catch (LinuxException failure) when (failure.Errno is Errno.EACCES or Errno.EROFS)
        {
            throw new LinuxException($"listen at {path}", failure.Errno, "The work directory has to be one that this user may write to: give another, here and to the restore, or run this as root, as the restore is.");
        }
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

    private void Take(int pid, FileDescriptor descriptor)
    {
        if (!_ranges.TryGetValue(pid, out List<GuestRegion>? ranges))
        {
            descriptor.Dispose();
            throw new PageServerException($"The restore has a process {pid}, and the images don't: it restores other images.");
        }

        if (!_taken.Add(pid))
        {
            // The daemon before took it, and died before it received what it had looked at.
            descriptor.Dispose();
            return;
        }

        var userfaultfd = Userfaultfd.FromDescriptor(descriptor);
        _ = _remote?.Connect();
        GuestMemory memory;
        if (_kept is null)
        {
            memory = GuestMemory.OfProcess(ranges, userfaultfd);
        }
        else
        {
            var record = ForeignRecord.Begin(pid, ranges);
            record.Forking = _kept.Add;
            memory = GuestMemory.OfProcess(record, userfaultfd);
            _kept.Add(record, userfaultfd);
        }

        LazyLog.Began(_logger, pid, memory.PageCount);
        Serve(CreateProcess(pid, new FaultEngine(memory, _logger)));
    }

    /// <summary>Goes on with all processes that were kept, each by its userfaultfd and its record.</summary>
    private void TakeUp(ReadOnlySpan<FileDescriptor> descriptors)
    {
        var records = new List<ForeignRecord>();
        var engines = new List<FaultEngine>();
        try
        {
            for (int i = 1; i < descriptors.Length; i += 2)
            {
                records.Add(ForeignRecord.Open(descriptors[i], pid => _ranges.GetValueOrDefault(pid)));
            }

            if (records.Count > 0)
            {
                _ = _remote?.Connect();
            }

            EndLostChildren(records);
            records.FindAll(static record => !record.IsFilled).ForEach(record => record.FillFrom(records));
            for (int i = 0; i < records.Count; i++)
            {
                var userfaultfd = Userfaultfd.FromDescriptor(descriptors[2 * i]);
                records[i].Forking = _kept!.Add;
                engines.Add(FaultEngine.TakeOver(GuestMemory.OfProcess(records[i], userfaultfd), records[i].States, _logger));
                _kept.Resume(records[i], userfaultfd);
            }

            KeepOn();
        }
        catch (Exception failure) when (failure is InvalidDataException or InvalidOperationException or LinuxException)
        {
            records.ForEach(static record => record.Dispose());
            throw new InvalidDataException($"What is kept of a process can't be gone on with. {failure.Message}", failure);
        }

        foreach (FaultEngine engine in engines)
        {
            int pid = engine.Memory.Record!.Pid;
            _ = _taken.Add(pid);
            LazyLog.Resumed(_logger, pid, engine.UnknownPages);
            Serve(CreateProcess(pid, engine));
        }
    }

    /// <summary>Keeps what was taken up, before anything is read of it: a child that is forked then has to be kept at once.</summary>
    private void KeepOn()
    {
        if (_listening is null)
        {
            _remote?.EndHandover();
            _kept!.EndHandover();
        }
        else
        {
            _kept!.KeepSockets([_listening.Descriptor, .. _restore is { } restore ? new[] { restore.Descriptor } : []]);
        }
    }

    private void EndLostChildren(List<ForeignRecord> records)
    {
        foreach (ForeignRecord record in records.Where(static record => record.IsFilled))
        {
            if (record.CountChildren(records) is > 0 and var lost)
            {
                IReadOnlyList<int> ended = LostChildren.End(record.Pid, record.Mapped, lost);
                LazyLog.LostChildren(_logger, record.Pid, lost, string.Join(", ", ended));
            }
        }
    }

    private LazyProcess CreateProcess(int pid, FaultEngine engine) => new(pid, engine, _content, child => Serve(CreateProcess(pid, child)));

    /// <summary>Brings the pages of a process, by a thread of its own.</summary>
    private void Serve(LazyProcess process)
    {
        var serving = new Thread(() =>
        {
            _isRestored.Wait();
            process.AwaitTouch(s_lastSteps);
            try
            {
                process.Complete(_background, _limit, () => _isEnding);
            }
            catch (IOException failure)
            {
                LazyLog.Failed(_logger, failure.Message);
                process.Complete(BackgroundFill.None, _limit, static () => false);
            }

            LazyLog.Ended(_logger, process.Pid, process.Statistics.DemandPages, process.Statistics.BackgroundPages);
            lock (_adding)
            {
                _summary.Add(process.Statistics);
            }

            if (process.Memory.Record is { } record)
            {
                _kept!.Remove(record);
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
