namespace Pageferry.Migration.Tests;

/// <summary>All that may happen next in a world.</summary>
internal sealed class HandoverMoves(HandoverRules rules)
{
    private readonly SourceMoves _source = new(rules);
    private readonly DestinationMoves _destination = new(rules);

    /// <summary>The steps that can be taken, and where each leads.</summary>
    internal IEnumerable<(WorldStep Step, HandoverWorld World)> From(HandoverWorld world)
    {
        foreach ((WorldStep step, Func<HandoverWorld, HandoverWorld> move) in Progress(world).Concat(Faults(world)))
        {
            HandoverWorld next;
            try
            {
                next = move(world);
            }
            catch (ProtocolException failure)
            {
                next = world with { Flaw = failure.Message };
            }

            yield return (step, next);
        }
    }

    private IEnumerable<(WorldStep Step, Func<HandoverWorld, HandoverWorld> Move)> Progress(HandoverWorld world)
    {
        SourceSide source = world.Source;
        DestinationSide destination = world.Destination;
        if (source.HasLink && !world.ToSource.IsEmpty)
        {
            yield return (new(StepKind.SourceReceives, world.ToSource.First.Type), _source.Receive);
        }

        if (destination.HasLink && !world.ToDestination.IsEmpty)
        {
            yield return (new(StepKind.DestinationReceives, world.ToDestination.First.Type), _destination.Receive);
        }

        // Who notices first may miss what the other said last.
        if (source.HasLink && (world.IsCut || !destination.HasLink))
        {
            yield return (new(StepKind.SourceNotices), _source.Fail);
        }

        if (destination.HasLink && (world.IsCut || !source.HasLink))
        {
            yield return (new(StepKind.DestinationNotices), _destination.Lose);
        }

        if (source.Work == SourceWork.PreCopy)
        {
            yield return (new(StepKind.StopGuest), _source.StopGuest);
        }

        if (source.Work == SourceWork.SendStart)
        {
            yield return (new(StepKind.SendStart), _source.SendStart);
        }

        if (source.HasLink && source.IsCancelled)
        {
            yield return (new(StepKind.MeetCancel), _source.Fail);
        }

        if (source.Work == SourceWork.Reconnect && destination is { IsAlive: true, HasLink: false, Work: DestinationWork.Listen } && destination.IsOfSession)
        {
            yield return (new(StepKind.Reconnect), world => _destination.Resume(world, SourceWork.AwaitFound));
        }

        if (destination is { Runs: true, HasExecuted: false })
        {
            yield return (new(StepKind.Execute), _destination.Execute);
        }

        if (destination is { HasLink: true, Work: DestinationWork.AwaitPages, HasPages: false } && !world.IsCut
            && source is { HasLink: true, Work: SourceWork.AwaitRunning or SourceWork.AwaitComplete })
        {
            yield return (new(StepKind.PagesArrive), current => current with { Destination = current.Destination with { HasPages = true } });
        }

        if (destination is { HasLink: true, Work: DestinationWork.AwaitPages, HasPages: true, HasExecuted: true })
        {
            yield return (new(StepKind.Complete), _destination.Complete);
        }
    }

    private IEnumerable<(WorldStep Step, Func<HandoverWorld, HandoverWorld> Move)> Faults(HandoverWorld world)
    {
        SourceSide source = world.Source;
        DestinationSide destination = world.Destination;
        if (source is { IsAlive: true, Runs: true, Work: SourceWork.Idle }
            && destination is { IsAlive: true, HasLink: false, Work: DestinationWork.Listen })
        {
            yield return (new(StepKind.Begin), _source.Begin);
        }

        if (!destination.IsAlive)
        {
            yield return (new(StepKind.DestinationRestarts), current => current with { Destination = current.Destination with { IsAlive = true } });
        }

        if (source.Work == SourceWork.PreCopy)
        {
            yield return (new(StepKind.AnotherRound), _source.GoAnotherRound);
        }

        if (source is { HasLink: true, IsCancelled: false, Stage: SourceStage.Owned or SourceStage.Offered })
        {
            yield return (new(StepKind.Cancel), current => current with { Source = current.Source with { IsCancelled = true } });
        }

        if (!world.IsCut && (source.HasLink || destination.HasLink))
        {
            yield return (new(StepKind.Cut), current => current with { IsCut = true, ToSource = default, ToDestination = default });
        }

        if (source.HasLink)
        {
            yield return (new(StepKind.SourceFails), _source.Fail);
        }

        if (destination.HasLink)
        {
            yield return (new(StepKind.DestinationFails), _destination.Lose);
        }

        if (destination is { HasLink: false, Stage: DestinationStage.Whole, Work: DestinationWork.Listen })
        {
            yield return (new(StepKind.DestinationEndsWaiting), current => current with { Destination = current.Destination with { Work = DestinationWork.Done } });
        }

        if (destination is { IsAlive: true, HasLink: false, Work: DestinationWork.Listen, Stage: DestinationStage.Started or DestinationStage.Exported })
        {
            yield return (new(StepKind.Export), _destination.Export);
        }

        if (source.Work == SourceWork.Reconnect && destination is { IsAlive: true, HasLink: false, Work: DestinationWork.Listen } && destination.IsOfSession)
        {
            yield return (new(StepKind.AskFence), current => _destination.Resume(current, SourceWork.AwaitFoundToFence));
        }

        if (source.Work == SourceWork.Reconnect && !destination.IsAlive)
        {
            yield return (new(StepKind.StateFenced), _source.StateFenced);
        }

        if (source.IsAlive)
        {
            yield return (new(StepKind.SourceDies), SourceMoves.Die);
        }

        if (source is { IsAlive: true, HasLink: true } && !world.ToSource.IsEmpty)
        {
            yield return (new(StepKind.SourceDiesReceiving, world.ToSource.First.Type), _source.DieReceiving);
        }

        // While it lives, a holder gives what it keeps to nobody else.
        if (!source.IsAlive && SourceHandover.TakeOver(world.Kept) is { } stage)
        {
            yield return (new(StepKind.Serve), current => SourceMoves.Serve(current, stage));
        }

        if (destination.HasLink)
        {
            yield return (new(StepKind.EngineDies), DestinationMoves.LoseEngine);
        }

        if (destination.HasLink && !world.ToDestination.IsEmpty)
        {
            yield return (new(StepKind.EngineDiesReceiving, world.ToDestination.First.Type), _destination.LoseEngineReceiving);
        }

        if (destination.IsAlive)
        {
            yield return (new(StepKind.DestinationDies), current => current.CloseAtDestination() with { Destination = new DestinationSide { HasCrashed = true } });
        }
    }
}
