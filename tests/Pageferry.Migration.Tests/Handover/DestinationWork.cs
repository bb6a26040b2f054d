namespace Pageferry.Migration.Tests;

/// <summary>What the destination is at, beside whose the guest is: mostly the message that it waits for.</summary>
internal enum DestinationWork
{
    /// <summary>Waits for a source, a new one or the one that was lost.</summary>
    Listen,
    AwaitLayout,
    AwaitSwitchover,
    AwaitStart,
    AwaitPages,
    AwaitReleased,

    /// <summary>The source is told that the guest can't run here any more, and is to close the link.</summary>
    AwaitEnd,
    Done,
}
