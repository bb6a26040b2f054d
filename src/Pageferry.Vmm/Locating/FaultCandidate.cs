namespace Pageferry.Vmm;

/// <summary>A page that a vCPU's next step can touch.</summary>
/// <param name="Gpa">The page's guest physical address.</param>
/// <param name="Access">All that the step does there.</param>
internal readonly record struct FaultCandidate(ulong Gpa, FaultAccess Access);
