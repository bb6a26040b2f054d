namespace Pageferry.Migration.Tests;

/// <summary>A step from one world to the next.</summary>
internal readonly record struct WorldStep(StepKind Kind, MessageType Message = default)
{
    /// <summary>Whether it happens without a fault and without a person.</summary>
    internal bool IsProgress => Kind <= StepKind.Complete;

    /// <summary>For a reader.</summary>
    public override string ToString() => Kind switch
    {
        StepKind.SourceReceives => $"the source receives {Message}",
        StepKind.DestinationReceives => $"the destination receives {Message}",
        StepKind.SourceNotices => "the source notices that the link is lost",
        StepKind.DestinationNotices => "the destination notices that the link is lost",
        StepKind.StopGuest => "the source stops the guest and sends Switchover",
        StepKind.SendStart => "the source sends Start",
        StepKind.MeetCancel => "the source's migration thread meets the cancelling",
        StepKind.Reconnect => "the source comes back to the session",
        StepKind.Execute => "the guest executes at the destination",
        StepKind.PagesArrive => "the last page arrives",
        StepKind.Complete => "the destination has every page and says so",
        StepKind.Begin => "a person begins a migration, and the source sends Layout",
        StepKind.AnotherRound => "the source lets the guest go on for another round",
        StepKind.Cancel => "a person cancels",
        StepKind.Cut => "the link is cut, and all on its way is lost",
        StepKind.SourceFails => "the source times out or fails, and closes the link",
        StepKind.DestinationFails => "the destination times out or fails, and closes the link",
        StepKind.DestinationEndsWaiting => "the destination waits no longer for a source that need not come back",
        StepKind.Export => "a person takes the guest out of the destination as a file",
        StepKind.AskFence => "a person rolls back, and the source asks the destination to drop the guest",
        StepKind.StateFenced => "a person rolls back, and vouches for the destination that is gone",
        StepKind.SourceDies => "the source's process dies",
        StepKind.SourceDiesReceiving => $"the source has a holder told what {Message} means, and its process dies before it acts on it",
        StepKind.Serve => "a person has another process serve what a holder keeps",
        StepKind.DestinationDies => "the destination's process dies",
        StepKind.DestinationRestarts => "another destination listens in its place",
        StepKind.EngineDies => "the destination's engine dies, and another one takes over what it recorded",
        StepKind.EngineDiesReceiving => $"the destination's engine records {Message}, dies before it acts on it, and another one takes over",
        _ => $"{Kind}",
    };
}
