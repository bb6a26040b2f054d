namespace Pageferry.Cli;

/// <summary>How a guest's process behaves.</summary>
/// <param name="ControlPath">Where to make the control socket.</param>
/// <param name="Output">Where to say what happens.</param>
/// <param name="IsHeld">Whether the process stays after its guest has ended or left, until it is stopped or its standard input closes.</param>
/// <param name="Delivery">How userfaults are delivered: one of the constants of <see cref="DeliveryWord"/>.</param>
/// <param name="Report">Where a report of a guest's arrival goes, an absolute path; null for none.</param>
internal sealed record VmProcessOptions(string ControlPath, VmOutput Output, bool IsHeld, string Delivery, string? Report = null);
