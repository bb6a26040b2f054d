namespace Pageferry.Conformance;

/// <summary>What came of a case.</summary>
public enum CaseOutcome
{
    /// <summary>The kernel does what the rule says.</summary>
    Pass,

    /// <summary>It doesn't; the detail has what was expected and what was found.</summary>
    Fail,

    /// <summary>The kernel or this machine lacks what the case needs; the detail has the kernel's answer.</summary>
    Unsupported,
}
