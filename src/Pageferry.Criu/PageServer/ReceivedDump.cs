namespace Pageferry.Criu;

/// <summary>What a dump sent.</summary>
/// <param name="Pagemaps">How many processes and shared memories.</param>
/// <param name="Pages">How many pages, of 4096 bytes each.</param>
public sealed record ReceivedDump(int Pagemaps, ulong Pages);
