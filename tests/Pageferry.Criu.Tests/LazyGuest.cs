using System.Collections.Concurrent;
using Microsoft.Extensions.Logging;
using Pageferry.Memory;
using Pageferry.Memory.Tests;

namespace Pageferry.Criu.Tests;

/// <summary>A process whose pages are in images, as the lazy-pages daemon has it once CRIU has handed it over.</summary>
internal sealed class LazyGuest : ILogger, IDisposable
{
    internal const ulong PageBytes = 4096;
    internal static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    private readonly ForeignProcess _process;
    private readonly List<string> _log = [];
    private LazyProcess? _lazy;
    private IContent? _content;

    internal LazyGuest(ulong pages)
    {
        Pages = pages;
        _process = new ForeignProcess(pages);
        Images.WritePagemap((_process.Address, pages, PagemapFlags.Present | PagemapFlags.Lazy));
        Images.WritePages((int)pages);
    }

    internal ulong Pages { get; }

    internal ulong Address => _process.Address;

    internal int Pid => _process.Pid;

    /// <summary>The engines of its children, none of them started.</summary>
    internal ConcurrentQueue<FaultEngine> Children { get; } = new();

    internal TestImages Images { get; } = new();

    internal LazyProcess Lazy => _lazy!;

    /// <summary>What was logged.</summary>
    internal string Log
    {
        get
        {
            lock (_log)
            {
                return string.Join('\n', _log);
            }
        }
    }

    /// <summary>Begins to answer the process's faults.</summary>
    internal void Start(IContent content)
    {
        _content = content;
        _lazy = new LazyProcess(TestImages.Pid, new FaultEngine(GuestMemory.OfProcess([new(_process.Address, Pages * PageBytes)], _process.Userfaultfd)), content, Children.Enqueue);
    }

    /// <summary>Has the process fork; nobody answers its child.</summary>
    /// <returns>What has the child do something.</returns>
    internal Func<char, ulong, ulong, ulong> Fork() => _process.Fork();

    internal LocalContent OpenImages() => new(new Dictionary<int, ProcessPages> { [TestImages.Pid] = ProcessPages.Open(ImageSet.Open(Images.Folder), TestImages.Pid) });

    /// <summary>Fills the process's memory, on a thread of its own.</summary>
    internal Task CompleteAsync(BackgroundFill background, long maxBandwidth = 0) =>
        Task.Run(() => Lazy.Complete(background, new BandwidthLimit(maxBandwidth), static () => false));

    /// <summary>Has the process read pages.</summary>
    /// <returns>Whether they are as they should be.</returns>
    internal bool Reads(ulong first, ulong count) => _process.Do('r', first, count) == WordsOf(first, count, 1);

    /// <summary>Has the process read every second page from behind, so that each is a fault: one that is touched brings those behind it.</summary>
    /// <returns>Whether they are as they should be.</returns>
    internal bool ReadsFromBehind(ulong first, ulong count) => _process.Do('b', first, count) == WordsOf(first, count, 2);

    /// <summary>The same on a thread of its own, since it may have to wait.</summary>
    internal Task<bool> ReadsAsync(ulong first, ulong count) => Task.Run(() => Reads(first, count));

    internal void Kill() => _process.Kill();

    /// <summary>Waits until something was logged.</summary>
    internal async Task AwaitLogAsync(string text)
    {
        using var limit = new CancellationTokenSource(Patience);
        while (!Log.Contains(text, StringComparison.Ordinal))
        {
            Assert.False(limit.IsCancellationRequested, $"Nothing said '{text}'. {Log}");
            await Task.Delay(10);
        }
    }

    public IDisposable? BeginScope<TState>(TState state)
        where TState : notnull => null;

    public bool IsEnabled(LogLevel logLevel) => true;

    void ILogger.Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
    {
        lock (_log)
        {
            _log.Add(formatter(state, exception));
        }
    }

    public void Dispose()
    {
        // A process that still waits ends first: an engine that closes its userfaultfd would give it zeros.
        _process.Dispose();
        _lazy?.Dispose();
        _content?.Dispose();
        Images.Dispose();
    }

    private static ulong WordsOf(ulong first, ulong count, ulong step)
    {
        // See foreign.c and TestImages: of each page 8 words, which hold its number in every byte.
        const ulong WordsRead = 8;
        const ulong EachByte = 0x0101_0101_0101_0101;
        ulong sum = 0;
        for (ulong page = 0; page < count; page++)
        {
            sum += WordsRead * EachByte * (byte)(first + (page * step));
        }

        return sum;
    }
}
