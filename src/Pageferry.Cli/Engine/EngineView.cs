using Pageferry.Memory;

namespace Pageferry.Cli;

/// <summary>Where a guest's memory is in its own process. Its file, its userfaultfd and, for a guest that is taken over, its record come along.</summary>
/// <param name="Address">The guest view's first address.</param>
/// <param name="Backing">What holds the memory.</param>
internal sealed record EngineView(ulong Address, GuestBacking Backing);
