namespace Pageferry.Migration.Tests;

/// <summary>What the destination does in a <see cref="HandoverWorld"/>: obeys the product's table as <see cref="IncomingSession"/> and <see cref="MigrationDestination"/> do.</summary>
internal sealed class DestinationMoves(HandoverRules rules)
{
    /// <summary>The source comes back to the session.</summary>
    internal HandoverWorld Resume(HandoverWorld world, SourceWork work) => Meet(
        At(
            world.Connect() with { Source = world.Source with { HasLink = true, Work = work } },
            world.Destination.Stage == DestinationStage.Loaded ? DestinationWork.AwaitStart : DestinationWork.AwaitPages),
        DestinationEvent.Resumed);

    internal HandoverWorld Export(HandoverWorld world) => Meet(world, DestinationEvent.Exported);

    internal HandoverWorld Execute(HandoverWorld world)
    {
        world = world with { Destination = world.Destination with { HasExecuted = true } };
        return world.SendToSource(MessageType.Running);
    }

    internal HandoverWorld Complete(HandoverWorld world) => Meet(world, DestinationEvent.PagesComplete);

    /// <summary>The link is lost, or given up here.</summary>
    internal HandoverWorld Lose(HandoverWorld world) => Lose(world.SendToSource(MessageType.Error), DestinationEvent.LinkLost);

    /// <summary>The engine's process dies: another one goes on from the record. A guest that was to be let run is, whether or not it was, and one that was to be stopped is stopped.</summary>
    internal static HandoverWorld LoseEngine(HandoverWorld world)
    {
        DestinationSide side = world.Destination;
        side = side.Stage switch
        {
            DestinationStage.Empty => new DestinationSide { IsAlive = true, HasCrashed = side.HasCrashed },
            DestinationStage.Loaded => side with { Work = DestinationWork.Listen },
            DestinationStage.Released => side with { Work = DestinationWork.Done },
            _ => side with { Work = DestinationWork.Listen },
        };
        side = DestinationHandover.TakeOver(side.Stage) switch
        {
            DestinationAction.Run => side with { Runs = true },
            DestinationAction.Stop => side with { Runs = false },
            _ => side,
        };
        return (world with { Destination = side }).CloseAtDestination();
    }

    /// <summary>It dies after it has recorded what a message means, and before it says or does anything.</summary>
    internal HandoverWorld LoseEngineReceiving(HandoverWorld world) => LoseEngine(Receive(world) with { ToSource = world.ToSource });

    internal HandoverWorld Receive(HandoverWorld world)
    {
        MessageType type = world.ToDestination.First.Type;
        world = world with { ToDestination = world.ToDestination.Rest };
        switch (world.Destination.Work, type)
        {
            case (_, MessageType.Error):
                return Lose(world, world.Destination.Work == DestinationWork.AwaitStart ? DestinationEvent.Parted : DestinationEvent.LinkLost);
            case (DestinationWork.AwaitLayout, MessageType.Layout):
                return TakeIn(world);
            case (DestinationWork.AwaitSwitchover, MessageType.Switchover):
                return Meet(At(world, DestinationWork.AwaitStart), DestinationEvent.StateLoaded);
            case (DestinationWork.AwaitStart, MessageType.Start):
                return Meet(At(world, DestinationWork.AwaitPages), DestinationEvent.Start);
            case (DestinationWork.AwaitStart or DestinationWork.AwaitPages or DestinationWork.AwaitReleased, MessageType.Fence):
                return TellGone(Meet(world, DestinationEvent.Fenced));
            case (DestinationWork.AwaitPages or DestinationWork.AwaitReleased, MessageType.Released):
                return Meet(At(world, DestinationWork.Done), DestinationEvent.Released).CloseAtDestination();
            default:
                return world with { Flaw = $"The destination received {type} at {world.Destination.Work}." };
        }
    }

    private static HandoverWorld At(HandoverWorld world, DestinationWork work) => world with { Destination = world.Destination with { Work = work } };

    private static HandoverWorld TellGone(HandoverWorld world) => At(
        world.SendToSource(MessageType.Found, world.Destination.Stage == DestinationStage.Fenced ? FoundGuest.Fenced : FoundGuest.Exported), DestinationWork.AwaitEnd);

    private HandoverWorld TakeIn(HandoverWorld world)
    {
        if (world.Destination.Stage != DestinationStage.Empty)
        {
            world = Meet(world, DestinationEvent.BegunAnew, out DestinationAction action);
            if (action != DestinationAction.Discard)
            {
                return At(world.SendToSource(MessageType.Error), DestinationWork.Listen).CloseAtDestination();
            }
        }

        world = world with { Destination = world.Destination with { IsOfSession = true } };
        return At(world, DestinationWork.AwaitSwitchover).SendToSource(MessageType.Armed);
    }

    private HandoverWorld Lose(HandoverWorld world, DestinationEvent met)
    {
        // The link of one that only began anew has nothing to do with the guest that is here.
        bool isHeld = world.Destination is { Work: DestinationWork.AwaitLayout, Stage: not DestinationStage.Empty };
        return At((isHeld ? world : Meet(world, met)).CloseAtDestination(), DestinationWork.Listen);
    }

    private HandoverWorld Meet(HandoverWorld world, DestinationEvent met) => Meet(world, met, out _);

    private HandoverWorld Meet(HandoverWorld world, DestinationEvent met, out DestinationAction action)
    {
        (DestinationStage stage, action) = rules.Destination(world.Destination.Stage, met);
        world = world with { Destination = world.Destination with { Stage = stage } };
        switch (action)
        {
            case DestinationAction.TellLoaded:
                return world.SendToSource(MessageType.StateLoaded);
            case DestinationAction.Run:
                return world with { Destination = world.Destination with { Runs = true } };
            case DestinationAction.Discard:
                return world with
                {
                    Destination = new DestinationSide { IsAlive = true, HasLink = world.Destination.HasLink, HasCrashed = world.Destination.HasCrashed },
                    Flaw = world.HasLetGo ? "The destination discarded a guest that the source had let go of." : null,
                };
            case DestinationAction.TellMissing:
                FoundGuest found = stage == DestinationStage.Loaded ? FoundGuest.Loaded : world.Destination.HasExecuted ? FoundGuest.Running : FoundGuest.Started;
                return world.SendToSource(MessageType.Missing).SendToSource(MessageType.Found, found);
            case DestinationAction.Stop:
                return world with { Destination = world.Destination with { Runs = false } };
            case DestinationAction.TellGone:
                return TellGone(world);
            case DestinationAction.TellComplete:
                return At(world.SendToSource(MessageType.Complete), DestinationWork.AwaitReleased);
            default:
                return world;
        }
    }
}
