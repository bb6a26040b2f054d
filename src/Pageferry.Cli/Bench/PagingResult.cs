using Pageferry.Memory;

namespace Pageferry.Cli;

/// <summary>What one measurement found.</summary>
/// <param name="Total">From the first vCPU's begin to the last one's end.</param>
/// <param name="OfVcpus">How long each vCPU took.</param>
/// <param name="Latencies">How long each touch took, by the guest's own clock.</param>
/// <param name="Engines">What each fault engine did; none without userfaults.</param>
internal sealed record PagingResult(TimeSpan Total, IReadOnlyList<TimeSpan> OfVcpus, LatencyHistogram Latencies, IReadOnlyList<FaultStatistics> Engines);
