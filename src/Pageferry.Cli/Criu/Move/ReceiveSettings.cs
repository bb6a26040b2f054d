using Pageferry.Criu;

namespace Pageferry.Cli;

/// <summary>How moved processes are received.</summary>
/// <param name="Listen">Where to wait for them.</param>
/// <param name="Criu">The CRIU to use.</param>
/// <param name="Background">Which pages to fetch that nobody waits for.</param>
/// <param name="MaxBandwidth">The most bytes per second of those; 0 for as many as there can be.</param>
/// <param name="Security">Who this side is and whom it trusts.</param>
internal sealed record ReceiveSettings(NetworkEndpoint Listen, string Criu, BackgroundFill Background, long MaxBandwidth, SecuritySettings Security);
