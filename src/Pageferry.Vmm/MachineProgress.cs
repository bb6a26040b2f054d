namespace Pageferry.Vmm;

/// <summary>How far a machine's guest is.</summary>
/// <param name="Passes">Passes that every vCPU has completed, on every host together.</param>
/// <param name="PassesHere">Passes that every vCPU has completed since its state was loaded here; one vCPU may be passes ahead of another.</param>
/// <param name="PagesChecked">Pages that the guest has checked and found right, all vCPUs and passes together.</param>
/// <param name="PagesWrong">Pages that the guest has found wrong. A built-in guest ends at its first.</param>
/// <param name="Ended">Whether the guest has ended.</param>
/// <param name="ExitCode">The code it ended with; 0 while it runs.</param>
/// <param name="Failure">Why the machine can't go on; null when it can, or ended by itself.</param>
public readonly record struct MachineProgress(ulong Passes, ulong PassesHere, ulong PagesChecked, ulong PagesWrong, bool Ended, int ExitCode, string? Failure);
