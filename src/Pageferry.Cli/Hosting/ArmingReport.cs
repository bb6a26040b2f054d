namespace Pageferry.Cli;

/// <summary>What came of arming or disarming: the object that <c>vm arm --json</c> and <c>vm disarm --json</c> write.</summary>
internal sealed record ArmingReport
{
    /// <summary>Always true: a refusal is no report.</summary>
    public bool Ok { get; init; } = true;

    /// <summary>Pages of the ranges that are armed now; null for a disarming.</summary>
    public ulong? PagesArmed { get; init; }

    /// <summary>Pages of the ranges that stay accessible; null for a disarming.</summary>
    public ulong? PagesAccessible { get; init; }

    /// <summary>Pages of the ranges that were armed and no longer are; null for an arming.</summary>
    public ulong? PagesDisarmed { get; init; }
}
