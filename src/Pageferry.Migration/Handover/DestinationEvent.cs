namespace Pageferry.Migration;

/// <summary>What the destination meets that bears on whose the guest is.</summary>
internal enum DestinationEvent
{
    /// <summary>The machine state is loaded, and all that is out of date is armed.</summary>
    StateLoaded,

    /// <summary>The source said to let the guest run (<see cref="MessageType.Start"/>).</summary>
    Start,

    /// <summary>The source said, on the control connection, that it parts: had it let go of the guest, that would have come before.</summary>
    Parted,

    /// <summary>The link was lost, in whatever way.</summary>
    LinkLost,

    /// <summary>The source comes back to this session.</summary>
    Resumed,

    /// <summary>A source begins anew with the same guest: that one owns it, and never let go of it.</summary>
    BegunAnew,

    /// <summary>Every page is here.</summary>
    PagesComplete,

    /// <summary>The source said that it has forgotten the guest (<see cref="MessageType.Released"/>).</summary>
    Released,

    /// <summary>A person takes the guest out of this process as a file, while there is no link and pages are missing.</summary>
    Exported,

    /// <summary>The source goes back to the switchover, and waits for the guest to be dropped here (<see cref="MessageType.Fence"/>).</summary>
    Fenced,
}
