namespace Pageferry.Memory;

/// <summary>A userfault that is not answered yet.</summary>
/// <param name="Gpa">The guest physical address of the page, or huge page, that somebody waits for.</param>
/// <param name="Cause">What it waits for: <see cref="FaultCause.Demand"/>, its content was asked for; <see cref="FaultCause.Arriving"/>, it is on its way.</param>
/// <param name="Age">How long it has waited.</param>
public readonly record struct WaitingFault(ulong Gpa, FaultCause Cause, TimeSpan Age);
