using Pageferry.Memory;

namespace Pageferry.Criu;

/// <summary>Where the content of dumped processes is.</summary>
internal interface IContent : IDisposable
{
    /// <summary>How many threads fill a process's memory in the background: as many as <see cref="Fill"/> may be called by at once.</summary>
    int Fillers { get; }

    /// <summary>Makes the ways into a process's memory: the content says who of its threads uses which.</summary>
    /// <param name="engine">The process's engine, which was started.</param>
    /// <returns>The lanes, which the caller disposes.</returns>
    PageLane[] CreateLanes(FaultEngine engine);

    /// <summary>Fetches pages that a process waits for; by the thread that reads its faults.</summary>
    /// <param name="process">The process, or one that it forked.</param>
    /// <param name="pages">Its pages.</param>
    void Demand(LazyProcess process, ReadOnlySpan<ulong> pages);

    /// <summary>Fetches pages that are absent and that nobody waits for. May return before they have arrived, and waits while too many are on their way.</summary>
    /// <param name="process">The process.</param>
    /// <param name="filler">Which of <see cref="Fillers"/> this is.</param>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many, within one region.</param>
    void Fill(LazyProcess process, int filler, ulong page, int count);
}
