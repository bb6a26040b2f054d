namespace Pageferry.Conformance;

/// <summary>K: many threads, few pages, and no content lost.</summary>
internal static class StressCases
{
    internal static IEnumerable<ConformanceCase> All =>
    [
        new('K', "bounce", "counters that four threads count up under locks in the pages, which two handlers and a background copier place and which are removed again and again, are never lost or doubled, and nobody waits for ever", "uffd-stress", ConformanceCase.All, arena => Bounce.Run(arena, isProtected: false)),
        new('K', "bounce-protected", "as bounce, of pages that are placed protected from writes, and protected again meanwhile", "uffd-stress", ConformanceCase.All, arena => Bounce.Run(arena, isProtected: true)),
    ];
}
