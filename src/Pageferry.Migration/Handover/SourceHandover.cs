namespace Pageferry.Migration;

/// <summary>
/// The source's part in handing a guest over: a token that moves once. From the moment it decides to send Start it can't know whether the destination runs the
/// guest, so it does not run it again; before that moment nobody else can have run it. The token comes back only from a destination that is known to be
/// without the guest: it said so itself, or a person vouches for it.
/// </summary>
internal static class SourceHandover
{
    /// <summary>What follows from an event.</summary>
    /// <param name="stage">Whose the guest is.</param>
    /// <param name="met">What was met.</param>
    /// <returns>Whose it is then, and what to do.</returns>
    /// <exception cref="ProtocolException">The destination says what it can't mean at this stage.</exception>
    internal static (SourceStage Stage, SourceAction Action) Step(SourceStage stage, SourceEvent met) => (stage, met) switch
    {
        (SourceStage.Owned, SourceEvent.Stopped) => (SourceStage.Offered, SourceAction.None),
        (SourceStage.Owned, SourceEvent.Failed) => (SourceStage.Owned, SourceAction.None),
        (SourceStage.Offered, SourceEvent.Failed) => (SourceStage.Owned, SourceAction.Resume),
        (SourceStage.Offered, SourceEvent.StateLoaded) => (SourceStage.LetGo, SourceAction.SendStart),
        (SourceStage.LetGo, SourceEvent.Failed) => (SourceStage.LetGo, SourceAction.Reconnect),
        (SourceStage.LetGo, SourceEvent.FoundLoaded) => (SourceStage.LetGo, SourceAction.SendStart),
        (SourceStage.LetGo, SourceEvent.FoundStarted) => (SourceStage.LetGo, SourceAction.Serve),
        (SourceStage.LetGo, SourceEvent.Completed) => (SourceStage.Forgotten, SourceAction.Release),
        (SourceStage.LetGo, SourceEvent.FoundExported) => (SourceStage.Exported, SourceAction.None),
        (SourceStage.LetGo, SourceEvent.FoundFenced or SourceEvent.StatedFenced) => (SourceStage.Owned, SourceAction.Resume),
        (SourceStage.Exported, SourceEvent.Failed) => (SourceStage.Exported, SourceAction.None),
        (SourceStage.Forgotten, SourceEvent.Failed) => (SourceStage.Forgotten, SourceAction.None),
        _ => throw new ProtocolException($"The source met {met} where the guest is {stage}."),
    };

    /// <summary>
    /// How what outlives this process has to be kept before a stage is acted on (<see cref="ISourceKeeper"/>): so that another process serves a guest that was let go of, and
    /// none that may run here.
    /// </summary>
    /// <param name="stage">Whose the guest is.</param>
    internal static KeptStage KeptAt(SourceStage stage) => stage switch
    {
        SourceStage.Owned => KeptStage.Burnt,
        SourceStage.Offered => KeptStage.Offered,
        SourceStage.LetGo or SourceStage.Exported => KeptStage.LetGo,
        _ => KeptStage.Dropped,
    };

    /// <summary>Whose the guest is for a process that takes over what was kept.</summary>
    /// <param name="kept">How it was kept.</param>
    /// <returns>The stage; null if there is nothing to take over: the guest was not handed over, or is the source's again.</returns>
    internal static SourceStage? TakeOver(KeptStage kept) => kept == KeptStage.LetGo ? SourceStage.LetGo : null;
}
