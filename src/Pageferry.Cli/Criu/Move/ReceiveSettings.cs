namespace Pageferry.Cli;

/// <summary>How moved processes are received.</summary>
/// <param name="Listen">Where to wait for them.</param>
/// <param name="Criu">The CRIU to use.</param>
/// <param name="Security">Who this side is and whom it trusts.</param>
internal sealed record ReceiveSettings(NetworkEndpoint Listen, string Criu, SecuritySettings Security);
