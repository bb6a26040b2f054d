namespace Pageferry.Cli;

/// <summary>The first message of a connection.</summary>
/// <param name="Version">The version of the protocol.</param>
/// <param name="Session">The move that this connection belongs to, as the destination called it; null to begin one.</param>
/// <param name="ForPages">Whether it is to carry pages.</param>
internal sealed record MoveHello(int Version, string? Session = null, bool ForPages = false);
