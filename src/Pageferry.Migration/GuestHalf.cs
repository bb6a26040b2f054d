using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>What one side of a migration has of a guest after the switchover, beside its memory.</summary>
/// <param name="Layout">The guest.</param>
/// <param name="Session">Tells migrations apart: a digest of 64 bits of the session's id, of 122, so that nobody finds the id by it.</param>
/// <param name="Generation">That of the pages that were sent after the switchover.</param>
/// <param name="IsPaused">Whether the guest was to stand still after the switchover.</param>
/// <param name="State">The machine state: as it was at the switchover, or as it is at the destination now.</param>
/// <param name="Pages">Tells which pages are here; null if all are.</param>
public sealed record GuestHalf(MigrationLayout Layout, ulong Session, uint Generation, bool IsPaused, ReadOnlyMemory<byte> State, PageStates? Pages);
