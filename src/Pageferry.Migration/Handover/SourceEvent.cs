namespace Pageferry.Migration;

/// <summary>What the source meets that bears on whose the guest is.</summary>
internal enum SourceEvent
{
    /// <summary>The guest was stopped to be handed over.</summary>
    Stopped,

    /// <summary>The destination said that it has loaded the state (<see cref="MessageType.StateLoaded"/>).</summary>
    StateLoaded,

    /// <summary>The link was lost, the destination parted, a person cancelled, or the guest is not to go yet.</summary>
    Failed,

    /// <summary>A new link is there, and the destination has not been told to let the guest run.</summary>
    FoundLoaded,

    /// <summary>A new link is there, and the destination has let the guest run.</summary>
    FoundStarted,

    /// <summary>The destination has every page (<see cref="MessageType.Complete"/>).</summary>
    Completed,

    /// <summary>A new link is there, and the guest was taken out of the destination as a file.</summary>
    FoundExported,

    /// <summary>The destination said that it has dropped the guest, and never runs it again.</summary>
    FoundFenced,

    /// <summary>A person has made certain that the destination can't run the guest, as by cutting its host off the power.</summary>
    StatedFenced,
}
