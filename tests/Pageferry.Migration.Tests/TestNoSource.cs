using Pageferry.Memory;

namespace Pageferry.Migration.Tests;

/// <summary>For memory that nobody touches.</summary>
internal sealed class TestNoSource : IPageSource
{
    public void Request(ReadOnlySpan<ulong> pages) => throw new InvalidOperationException("A page was touched.");
}
