namespace Pageferry.Cli;

/// <summary>One line of <c>vm run --json</c> and <c>vm receive --json</c>.</summary>
internal sealed record VmEvent
{
    /// <summary><c>started</c>, <c>listening</c>, <c>serving</c>, <c>console</c>, <c>log</c>, <c>state</c>, <c>report</c> or <c>ended</c>.</summary>
    public required string Event { get; init; }

    /// <summary>The line that the guest wrote (<c>console</c>), or what happened, for a reader.</summary>
    public string? Text { get; init; }

    /// <summary>The guest's state at that moment; null for <c>console</c> and <c>log</c>.</summary>
    public VmStatus? Status { get; init; }
}
