namespace Pageferry.Migration;

/// <summary>
/// The destination's part in handing a guest over. It runs the guest when it was told to and not before. Once it has said that it could, it keeps the guest
/// until it knows that the source has not let go of it: the guest's only state may be here.
/// </summary>
internal static class DestinationHandover
{
    /// <summary>What follows from an event.</summary>
    /// <param name="stage">Whose the guest is.</param>
    /// <param name="met">What was met.</param>
    /// <returns>Whose it is then, and what to do.</returns>
    /// <exception cref="ProtocolException">The source says what it can't mean at this stage.</exception>
    internal static (DestinationStage Stage, DestinationAction Action) Step(DestinationStage stage, DestinationEvent met) => (stage, met) switch
    {
        (DestinationStage.Empty, DestinationEvent.StateLoaded) => (DestinationStage.Loaded, DestinationAction.TellLoaded),
        (DestinationStage.Empty, DestinationEvent.Parted or DestinationEvent.LinkLost) => (DestinationStage.Empty, DestinationAction.Discard),
        (DestinationStage.Loaded, DestinationEvent.Start) => (DestinationStage.Started, DestinationAction.Run),
        (DestinationStage.Loaded, DestinationEvent.Parted or DestinationEvent.BegunAnew) => (DestinationStage.Empty, DestinationAction.Discard),
        (DestinationStage.Loaded or DestinationStage.Started or DestinationStage.Whole, DestinationEvent.LinkLost) => (stage, DestinationAction.AwaitSource),
        (DestinationStage.Loaded or DestinationStage.Started or DestinationStage.Whole, DestinationEvent.Resumed) => (stage, DestinationAction.TellMissing),
        (DestinationStage.Started or DestinationStage.Whole, DestinationEvent.Parted) => (stage, DestinationAction.AwaitSource),
        (DestinationStage.Started or DestinationStage.Whole or DestinationStage.Exported or DestinationStage.Fenced, DestinationEvent.BegunAnew) => (stage, DestinationAction.Refuse),
        (DestinationStage.Started or DestinationStage.Whole, DestinationEvent.PagesComplete) => (DestinationStage.Whole, DestinationAction.TellComplete),
        (DestinationStage.Whole, DestinationEvent.Released) => (DestinationStage.Released, DestinationAction.None),
        (DestinationStage.Released, DestinationEvent.LinkLost) => (DestinationStage.Released, DestinationAction.None),
        (DestinationStage.Started or DestinationStage.Exported, DestinationEvent.Exported) => (DestinationStage.Exported, DestinationAction.Stop),
        (DestinationStage.Loaded or DestinationStage.Started or DestinationStage.Whole, DestinationEvent.Fenced) => (DestinationStage.Fenced, DestinationAction.Stop),
        (DestinationStage.Exported or DestinationStage.Fenced, DestinationEvent.Resumed) => (stage, DestinationAction.TellGone),
        (DestinationStage.Exported or DestinationStage.Fenced, DestinationEvent.LinkLost or DestinationEvent.Parted) => (stage, DestinationAction.AwaitSource),
        _ => throw new ProtocolException($"The destination met {met} where the guest is {stage}."),
    };

    /// <summary>What to do about a guest that a process takes over: the one that died may have recorded the stage and not acted on it.</summary>
    /// <param name="stage">Whose the guest is, as recorded.</param>
    /// <returns><see cref="DestinationAction.Run"/> or <see cref="DestinationAction.Stop"/>, which change nothing where that was done; else nothing.</returns>
    internal static DestinationAction TakeOver(DestinationStage stage) => stage switch
    {
        DestinationStage.Started or DestinationStage.Whole => DestinationAction.Run,
        DestinationStage.Exported or DestinationStage.Fenced => DestinationAction.Stop,
        _ => DestinationAction.None,
    };
}
