namespace Pageferry.Memory;

/// <summary>Where pages come from. Requests are pipelined; the answers arrive in any order through a <see cref="PageLane"/>.</summary>
public interface IPageSource
{
    /// <summary>
    /// Asks for pages that the guest waits for. Called by the fault engine's reader thread, or by each vCPU's own thread where faults are delivered as exits, so
    /// by several at once. It must not allocate, wait for the guest, or take a lock that a thread touching guest memory can hold. It may place the pages at once.
    /// </summary>
    /// <param name="pages">Page numbers, each asked for once; valid during the call.</param>
    void Request(ReadOnlySpan<ulong> pages);
}
