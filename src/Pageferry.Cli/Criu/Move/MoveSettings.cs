namespace Pageferry.Cli;

/// <summary>What is to be moved, and where to.</summary>
/// <param name="Pid">The first process.</param>
/// <param name="To">Where the destination listens.</param>
/// <param name="Criu">The CRIU to use.</param>
/// <param name="Traits">What is special about the processes.</param>
/// <param name="Security">Who this side is and whom it trusts.</param>
internal sealed record MoveSettings(int Pid, NetworkEndpoint To, string Criu, CriuTraits Traits, SecuritySettings Security);
