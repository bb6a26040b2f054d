namespace Pageferry.Cli;

/// <summary>How far the writing of a half of a guest is; at its end, what was written.</summary>
/// <param name="Path">Where it is.</param>
/// <param name="Side"><c>source</c> or <c>destination</c>.</param>
/// <param name="PagesWritten">Pages that are in it, those included that are zero.</param>
/// <param name="PagesTotal">The guest's pages.</param>
internal sealed record ExportReport(string Path, string Side, ulong PagesWritten, ulong PagesTotal);
