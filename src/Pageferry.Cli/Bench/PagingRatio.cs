namespace Pageferry.Cli;

/// <summary>How many times as long a fault takes with one delivery as with another.</summary>
/// <param name="Delivery">The one.</param>
/// <param name="To">The other.</param>
/// <param name="Ratio">The ratio of their medians.</param>
internal sealed record PagingRatio(string Delivery, string To, double Ratio);
