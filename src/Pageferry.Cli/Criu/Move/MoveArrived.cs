namespace Pageferry.Cli;

/// <summary>How it went at the destination.</summary>
/// <param name="RestoreMs">From the last image to the processes standing ready.</param>
internal sealed record MoveArrived(double RestoreMs);
