namespace Pageferry.Criu;

/// <summary>Where the content of dumped processes is.</summary>
internal interface IContent : IDisposable
{
    /// <summary>Fetches pages that a process waits for; by the thread that reads its faults.</summary>
    /// <param name="process">The process, or one that it forked.</param>
    /// <param name="pages">Its pages.</param>
    void Demand(LazyProcess process, ReadOnlySpan<ulong> pages);

    /// <summary>Fetches pages that are absent and that nobody waits for. May return before they have arrived, and waits while too many are on their way.</summary>
    /// <param name="process">The process.</param>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many, within one region.</param>
    void Fill(LazyProcess process, ulong page, int count);
}
