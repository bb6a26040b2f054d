namespace Pageferry.Migration.Tests;

/// <summary>What must hold in every world, and in those where nothing more happens by itself.</summary>
internal static class HandoverChecks
{
    /// <returns>What does not hold; null if all does.</returns>
    internal static string? FindFlaw(HandoverWorld world)
    {
        (SourceSide source, DestinationSide destination) = (world.Source, world.Destination);
        return world.Flaw
            ?? (source.Runs && destination.Runs ? "Both sides run the guest."
            : source.Runs && world.HasLetGo ? "The source runs a guest that it has let go of."
            : destination.Runs && !world.HasLetGo ? "The destination runs a guest that the source has not let go of."
            : source.Runs && world.Kept == KeptStage.LetGo ? "The source runs a guest that another process could serve."
            : null);
    }

    /// <summary>Checks a world where nothing more happens without a fault or a person.</summary>
    /// <returns>What is not as it should end; null if all is.</returns>
    internal static string? FindUnrest(HandoverWorld world)
    {
        (SourceSide source, DestinationSide destination) = (world.Source, world.Destination);
        if (source.HasLink || destination.HasLink)
        {
            return "A side waits on a link for ever.";
        }

        if (!source.IsAlive || destination.HasCrashed)
        {
            return FindLoss(world);
        }

        if (destination.Stage == DestinationStage.Exported)
        {
            return !destination.Runs && source is { Runs: false, Stage: SourceStage.Exported } ? null : "The guest was taken out as a file, and a side does not know.";
        }

        bool isRight = world.HasLetGo
            ? destination is { Runs: true, HasPages: true, Stage: DestinationStage.Whole or DestinationStage.Released }
                && (source.Stage == SourceStage.Forgotten || (source.Work == SourceWork.Reconnect && destination.Work == DestinationWork.Done))
            : source is { Runs: true, Stage: SourceStage.Owned, Work: SourceWork.Idle } && destination.Stage is DestinationStage.Empty or DestinationStage.Loaded or DestinationStage.Fenced;
        return isRight ? null : "The guest does not run where it should, with all its pages.";
    }

    /// <summary>Checks that who is left after a death keeps what it has of the guest.</summary>
    private static string? FindLoss(HandoverWorld world)
    {
        (SourceSide source, DestinationSide destination) = (world.Source, world.Destination);
        if (source.IsAlive && !world.HasLetGo)
        {
            return source is { Runs: true, Stage: SourceStage.Owned } ? null : "The guest does not go on at the source.";
        }

        if (source.IsAlive && source.Stage is not (SourceStage.LetGo or SourceStage.Forgotten or SourceStage.Exported))
        {
            return "The source does not keep what the guest needs.";
        }

        // A guest that runs without all its pages, or is about to, can be given them once somebody serves what is kept.
        if (!source.IsAlive && world.HasLetGo && !destination.HasCrashed && destination.Stage is DestinationStage.Loaded or DestinationStage.Started && world.Kept != KeptStage.LetGo)
        {
            return "Nobody keeps what the guest lacks.";
        }

        bool isLostHere = world.HasLetGo && !destination.HasCrashed && destination.Stage == DestinationStage.Empty;
        bool isStopped = destination.Stage is DestinationStage.Started or DestinationStage.Whole or DestinationStage.Released && !destination.Runs;
        return isLostHere || isStopped ? "The destination does not keep the guest." : null;
    }
}
