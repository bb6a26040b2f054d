namespace Pageferry.Cli;

/// <summary>One line that a control socket answers. A request is answered by any number of <see cref="Progress"/> and one of the others.</summary>
internal sealed record ControlAnswer
{
    /// <summary>The request goes on; more answers follow.</summary>
    internal const string Progress = "progress";

    /// <summary>The request is done.</summary>
    internal const string Done = "done";

    /// <summary>The request failed; <see cref="Message"/> says why.</summary>
    internal const string Error = "error";

    /// <summary>Which kind of answer this is: one of the constants of this type.</summary>
    public required string Event { get; init; }

    /// <summary>Why it failed and what to do.</summary>
    public string? Message { get; init; }

    /// <summary>The guest's state when the answer was made.</summary>
    public VmStatus? Status { get; init; }

    /// <summary>What came of arming or disarming.</summary>
    public ArmingReport? Arming { get; init; }

    /// <summary>How far an export is.</summary>
    public ExportReport? Export { get; init; }

    /// <summary>Whether more answers to the same request follow.</summary>
    internal bool IsLast => !string.Equals(Event, Progress, StringComparison.Ordinal);
}
