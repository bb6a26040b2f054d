using System.Diagnostics;
using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>
/// Makes huge pages of a guest's memory of small ones, 2 MiB by 2 MiB, on a thread of its own while the guest runs. It rests as long as it works, since a guest that touches
/// what is being collapsed waits for it.
/// </summary>
/// <remarks>What can't be collapsed stays as it is and works as before, only slower; see <see cref="MappedRegion.TryCollapse"/>.</remarks>
public sealed class HugePageCollapse
{
    /// <summary>The size of a huge page in bytes: 2 MiB.</summary>
    public const ulong HugePageSize = 2UL << 20;

    private const ulong PagesPerHugePage = HugePageSize / Page.Size;

    private readonly GuestMemory _memory;
    private readonly TaskCompletionSource _completed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Thread _thread;
    private volatile bool _stopping;
    private long _collapsed;
    private long _left;

    internal HugePageCollapse(GuestMemory memory)
    {
        _memory = memory;
        _thread = new Thread(CollapseAll) { IsBackground = true, Name = "huge pages" };
        _thread.Start();
    }

    /// <summary>Huge pages made.</summary>
    public long Collapsed => Volatile.Read(ref _collapsed);

    /// <summary>Ranges of 2 MiB that have content and stayed small pages.</summary>
    public long Left => Volatile.Read(ref _left);

    /// <summary>Completes when all of the memory was gone over, or it was stopped.</summary>
    public Task Completed => _completed.Task;

    /// <summary>Ends it; returns when nothing is being collapsed any more.</summary>
    internal void Stop()
    {
        _stopping = true;
        _thread.Join();
    }

    private void CollapseAll()
    {
        ulong end = _memory.PageCount - (_memory.PageCount % PagesPerHugePage);
        ulong page = 0;
        while (!_stopping && (page = _memory.NextContent(page) & ~(PagesPerHugePage - 1)) < end)
        {
            long begun = Stopwatch.GetTimestamp();
            bool isCollapsed = _memory.GuestView.TryCollapse(page * Page.Size);
            _ = Interlocked.Increment(ref isCollapsed ? ref _collapsed : ref _left);
            page += PagesPerHugePage;
            CurrentThread.Sleep(Stopwatch.GetElapsedTime(begun));
        }

        _completed.SetResult();
    }
}
