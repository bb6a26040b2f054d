using Pageferry.Memory;

namespace Pageferry.Fuzz;

/// <summary>For memory that nobody touches.</summary>
internal sealed class NoSource : IPageSource
{
    public void Request(ReadOnlySpan<ulong> pages) => throw new InvalidOperationException("A page was touched.");
}
