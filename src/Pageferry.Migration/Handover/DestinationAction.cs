namespace Pageferry.Migration;

/// <summary>What the destination has to do then.</summary>
internal enum DestinationAction
{
    /// <summary>Nothing about the guest.</summary>
    None,

    /// <summary>Tell the source that the state is loaded (<see cref="MessageType.StateLoaded"/>).</summary>
    TellLoaded,

    /// <summary>Let the guest run.</summary>
    Run,

    /// <summary>Drop all that is here of the guest.</summary>
    Discard,

    /// <summary>Keep what is here, and wait for the source to come back.</summary>
    AwaitSource,

    /// <summary>Tell the source which pages are missing, and whether the guest was let run.</summary>
    TellMissing,

    /// <summary>Tell the source that every page is here (<see cref="MessageType.Complete"/>).</summary>
    TellComplete,

    /// <summary>Turn the newcomer away.</summary>
    Refuse,

    /// <summary>Stop the guest for good.</summary>
    Stop,

    /// <summary>Tell the source that the guest can't run here any more, and why (<see cref="MessageType.Found"/>).</summary>
    TellGone,
}
