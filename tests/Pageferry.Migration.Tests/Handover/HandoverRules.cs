namespace Pageferry.Migration.Tests;

/// <summary>What the sides go by.</summary>
internal sealed record HandoverRules
{
    internal Func<SourceStage, SourceEvent, (SourceStage Stage, SourceAction Action)> Source { get; init; } = SourceHandover.Step;

    internal Func<DestinationStage, DestinationEvent, (DestinationStage Stage, DestinationAction Action)> Destination { get; init; } = DestinationHandover.Step;

    internal Func<SourceStage, KeptStage> Kept { get; init; } = SourceHandover.KeptAt;

    /// <summary>Whether a source that has let go still says that it parts when its link fails; ours doesn't.</summary>
    internal bool PartsAfterLettingGo { get; init; }
}
