namespace Pageferry.Migration.Tests;

/// <summary>What the source does in a <see cref="HandoverWorld"/>: obeys the product's table as <see cref="MigrationSource"/> and <see cref="PostCopy"/> do.</summary>
internal sealed class SourceMoves(HandoverRules rules)
{
    internal HandoverWorld Begin(HandoverWorld world)
    {
        world = world with
        {
            Source = world.Source with { Stage = SourceStage.Owned, Work = SourceWork.AwaitArmed, IsCancelled = false },
            Destination = world.Destination with { Work = DestinationWork.AwaitLayout, IsOfSession = false },
        };
        return world.Connect().SendToDestination(MessageType.Layout);
    }

    internal HandoverWorld StopGuest(HandoverWorld world)
    {
        world = world with { Source = world.Source with { Runs = false, Work = SourceWork.AwaitStateLoaded } };
        return Meet(world, SourceEvent.Stopped).SendToDestination(MessageType.Switchover);
    }

    /// <summary>The guest is stopped and goes on, since it wrote too much meanwhile.</summary>
    internal HandoverWorld GoAnotherRound(HandoverWorld world)
    {
        world = world with { Source = world.Source with { Runs = false } };
        return Meet(Meet(world, SourceEvent.Stopped), SourceEvent.Failed);
    }

    internal HandoverWorld SendStart(HandoverWorld world) =>
        (world with { Source = world.Source with { Work = SourceWork.AwaitRunning } }).SendToDestination(MessageType.Start);

    internal HandoverWorld Fail(HandoverWorld world)
    {
        world = Meet(world, SourceEvent.Failed, out SourceAction action);
        if (action != SourceAction.Reconnect || rules.PartsAfterLettingGo)
        {
            world = world.SendToDestination(MessageType.Error);
        }

        world = world with { Source = world.Source with { Work = action == SourceAction.Reconnect ? SourceWork.Reconnect : SourceWork.Idle } };
        return world.CloseAtSource();
    }

    /// <summary>Goes back to the switchover, since a person vouches that the destination can't run the guest.</summary>
    internal HandoverWorld StateFenced(HandoverWorld world) => Meet(world, SourceEvent.StatedFenced);

    /// <summary>The process dies: a holder forgets what was not let go of.</summary>
    internal static HandoverWorld Die(HandoverWorld world) => (world with
    {
        Source = world.Source with { IsAlive = false, Runs = false, IsCancelled = false, Work = SourceWork.Idle },
        Kept = world.Kept == KeptStage.LetGo ? KeptStage.LetGo : KeptStage.Dropped,
    }).CloseAtSource();

    /// <summary>It dies when a holder has been told what a message means, and before it says or does anything.</summary>
    internal HandoverWorld DieReceiving(HandoverWorld world) => Die(Receive(world) with { ToDestination = world.ToDestination });

    /// <summary>Another process takes over what a holder keeps.</summary>
    internal static HandoverWorld Serve(HandoverWorld world, SourceStage stage) =>
        world with { Source = new SourceSide { IsAlive = true, Stage = stage, Work = SourceWork.Reconnect } };

    internal HandoverWorld Receive(HandoverWorld world)
    {
        (MessageType type, FoundGuest found) = world.ToSource.First;
        world = world with { ToSource = world.ToSource.Rest };
        switch (world.Source.Work, type)
        {
            case (_, MessageType.Error):
                return Fail(world);
            case (SourceWork.AwaitArmed, MessageType.Armed):
                return At(world, SourceWork.PreCopy);
            case (SourceWork.AwaitStateLoaded, MessageType.StateLoaded):
                return world.Source.IsCancelled ? Fail(world) : Meet(world, SourceEvent.StateLoaded);
            case (SourceWork.AwaitFound or SourceWork.AwaitFoundToFence, MessageType.Missing):
            case (SourceWork.AwaitFenced, MessageType.Running or MessageType.Complete):
                return world;
            case (_, MessageType.Found) when found is FoundGuest.Exported or FoundGuest.Fenced:
                return Meet(At(world, SourceWork.Done), found == FoundGuest.Exported ? SourceEvent.FoundExported : SourceEvent.FoundFenced).CloseAtSource();
            case (SourceWork.AwaitFoundToFence, MessageType.Found):
                return At(world.SendToDestination(MessageType.Fence), SourceWork.AwaitFenced);
            case (SourceWork.AwaitFound, MessageType.Found):
                return Meet(
                    At(world, found == FoundGuest.Running ? SourceWork.AwaitComplete : SourceWork.AwaitRunning),
                    found == FoundGuest.Loaded ? SourceEvent.FoundLoaded : SourceEvent.FoundStarted);
            case (SourceWork.AwaitRunning, MessageType.Running):
                return At(world, SourceWork.AwaitComplete);
            case (SourceWork.AwaitComplete, MessageType.Complete):
                return Meet(world, SourceEvent.Completed);
            default:
                return world with { Flaw = $"The source received {type} at {world.Source.Work}." };
        }
    }

    private static HandoverWorld At(HandoverWorld world, SourceWork work) => world with { Source = world.Source with { Work = work } };

    private HandoverWorld Meet(HandoverWorld world, SourceEvent met) => Meet(world, met, out _);

    private HandoverWorld Meet(HandoverWorld world, SourceEvent met, out SourceAction action)
    {
        (SourceStage stage, action) = rules.Source(world.Source.Stage, met);

        // Before anything is done about it, as the product does.
        world = world with { Source = world.Source with { Stage = stage }, Kept = rules.Kept(stage) };
        return action switch
        {
            SourceAction.Resume when met is SourceEvent.FoundFenced or SourceEvent.StatedFenced =>
                world with { Source = world.Source with { Runs = true, Work = SourceWork.Idle }, HasLetGo = false },
            SourceAction.Resume => world with { Source = world.Source with { Runs = true } },
            SourceAction.SendStart => At(world, SourceWork.SendStart) with { HasLetGo = true },
            SourceAction.Release => At(world.SendToDestination(MessageType.Released), SourceWork.Done).CloseAtSource(),
            _ => world,
        };
    }
}
