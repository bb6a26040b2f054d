namespace Pageferry.Criu;

/// <summary>Puts the content of pages into memory.</summary>
/// <param name="process">Whose they are.</param>
/// <param name="page">The first page.</param>
/// <param name="content">Where to; its length says how many.</param>
internal delegate void PageReading(LazyProcess process, ulong page, Span<byte> content);
