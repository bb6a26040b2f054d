namespace Pageferry.Cli;

/// <summary>One bar of a histogram.</summary>
/// <param name="FromUs">The shortest latency that it counts, in microseconds.</param>
/// <param name="ToUs">Where the next bar begins.</param>
/// <param name="Count">How many there were.</param>
internal sealed record LatencyBar(double FromUs, double ToUs, long Count);
