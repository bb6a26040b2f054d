namespace Pageferry.Criu;

/// <summary>Puts the content of pages into memory.</summary>
/// <param name="page">The first page.</param>
/// <param name="content">Where to; its length says how many.</param>
internal delegate void PageReading(ulong page, Span<byte> content);
