namespace Pageferry.Migration;

/// <summary>What comes after a round of pre-copy, and why.</summary>
/// <param name="Kind">What.</param>
/// <param name="Throttle">The share of time to keep the vCPUs from running, in percent.</param>
/// <param name="Reason">Why, for a reader.</param>
internal readonly record struct Decision(DecisionKind Kind, int Throttle, string Reason);
