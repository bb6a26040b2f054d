namespace Pageferry.Memory;

/// <summary>
/// A page source that answers every userfault at once with the content that the page has. With it, arming a range tells which of its pages the guest touches
/// next, and costs the guest a userfault for each.
/// </summary>
/// <param name="engine">The engine that it is the source of.</param>
public sealed class KeptPages(FaultEngine engine) : IPageSource
{
    private long _count;

    /// <summary>Pages answered.</summary>
    public long Count => Volatile.Read(ref _count);

    /// <inheritdoc/>
    public void Request(ReadOnlySpan<ulong> pages)
    {
        for (int first = 0; first < pages.Length;)
        {
            int end = first + 1;
            while (end < pages.Length && pages[end] == pages[end - 1] + 1)
            {
                end++;
            }

            _ = engine.Keep(pages[first], (ulong)(end - first));
            first = end;
        }

        _ = Interlocked.Add(ref _count, pages.Length);
    }
}
