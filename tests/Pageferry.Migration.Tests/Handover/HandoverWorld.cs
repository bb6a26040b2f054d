namespace Pageferry.Migration.Tests;

/// <summary>Both sides of a migration, and what is on its way between them.</summary>
internal readonly record struct HandoverWorld
{
    /// <summary>The guest runs at the source, and a destination listens.</summary>
    internal static HandoverWorld Initial { get; } = new()
    {
        Source = new SourceSide { IsAlive = true, Runs = true },
        Destination = new DestinationSide { IsAlive = true },
        Kept = KeptStage.Dropped,
    };

    internal SourceSide Source { get; init; }

    internal DestinationSide Destination { get; init; }

    internal MessageQueue ToSource { get; init; }

    internal MessageQueue ToDestination { get; init; }

    /// <summary>Whether nothing goes through any more on the link that a side may still think it has.</summary>
    internal bool IsCut { get; init; }

    /// <summary>Whether the source ever decided to send Start, whatever its stage says.</summary>
    internal bool HasLetGo { get; init; }

    /// <summary>How a holder keeps what the source serves from.</summary>
    internal KeptStage Kept { get; init; }

    /// <summary>What went wrong in the last step; null for nothing.</summary>
    internal string? Flaw { get; init; }

    internal HandoverWorld SendToSource(MessageType type, FoundGuest found = default) =>
        !IsCut && Source.HasLink && Destination.HasLink ? this with { ToSource = ToSource.With(type, found) } : this;

    internal HandoverWorld SendToDestination(MessageType type) =>
        !IsCut && Source.HasLink && Destination.HasLink ? this with { ToDestination = ToDestination.With(type) } : this;

    /// <summary>The source closes its end: what was sent to it is lost, what it sent may still arrive.</summary>
    internal HandoverWorld CloseAtSource() => this with { Source = Source with { HasLink = false }, ToSource = default };

    /// <summary>The destination closes its end.</summary>
    internal HandoverWorld CloseAtDestination() => this with { Destination = Destination with { HasLink = false }, ToDestination = default };

    /// <summary>A new link, on which nothing was sent.</summary>
    internal HandoverWorld Connect() => this with
    {
        Source = Source with { HasLink = true },
        Destination = Destination with { HasLink = true },
        ToSource = default,
        ToDestination = default,
        IsCut = false,
    };

    /// <summary>For a reader.</summary>
    public override string ToString() =>
        $"{Source}\n{Destination}\nThe link is {(IsCut ? "cut" : "whole")}; on the way to the source: {ToSource}; to the destination: {ToDestination}. What the source serves from is {Kept}.";
}
