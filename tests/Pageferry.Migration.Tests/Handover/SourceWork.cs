namespace Pageferry.Migration.Tests;

/// <summary>What the source is at, beside whose the guest is: mostly the message that it waits for.</summary>
internal enum SourceWork
{
    Idle,
    AwaitArmed,
    PreCopy,
    AwaitStateLoaded,
    AwaitFound,

    /// <summary>As before, and the destination is then to drop the guest.</summary>
    AwaitFoundToFence,
    AwaitFenced,

    /// <summary>Start is due, and may still fail to be sent.</summary>
    SendStart,
    AwaitRunning,
    AwaitComplete,

    /// <summary>The destination is looked for.</summary>
    Reconnect,
    Done,
}
