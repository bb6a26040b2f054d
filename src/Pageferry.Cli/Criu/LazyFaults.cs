namespace Pageferry.Cli;

/// <summary>The faults that had one cause.</summary>
/// <param name="Cause">What their pages needed: <c>demand</c>, <c>arriving</c>, <c>zero</c> or <c>present</c>.</param>
/// <param name="Count">How many.</param>
/// <param name="LatencyUs">How long they took.</param>
internal sealed record LazyFaults(string Cause, long Count, FaultLatency LatencyUs);
