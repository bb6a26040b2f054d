namespace Pageferry.Migration.Tests;

/// <summary>What may happen next in a <see cref="HandoverWorld"/>. Those up to <see cref="Complete"/> happen by themselves; the others need a fault or a person.</summary>
internal enum StepKind
{
    SourceReceives,
    DestinationReceives,
    SourceNotices,
    DestinationNotices,
    StopGuest,
    SendStart,
    MeetCancel,
    Reconnect,
    Execute,
    PagesArrive,
    Complete,

    Begin,
    AnotherRound,
    Cancel,
    Cut,
    SourceFails,
    DestinationFails,
    DestinationEndsWaiting,
    Export,
    AskFence,
    StateFenced,
    SourceDies,
    SourceDiesReceiving,
    Serve,
    DestinationDies,
    DestinationRestarts,
    EngineDies,
    EngineDiesReceiving,
}
