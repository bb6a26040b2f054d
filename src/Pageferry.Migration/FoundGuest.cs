namespace Pageferry.Migration;

/// <summary>How far the guest is at the destination that a source comes back to (<see cref="MessageType.Found"/>).</summary>
internal enum FoundGuest : byte
{
    /// <summary>Loaded; the destination was not told to let it run.</summary>
    Loaded = 1,

    /// <summary>It was let run.</summary>
    Started = 2,

    /// <summary>It has executed.</summary>
    Running = 3,

    /// <summary>It was stopped there, and taken out as a file.</summary>
    Exported = 4,

    /// <summary>It was dropped there, as the source asked (<see cref="MessageType.Fence"/>).</summary>
    Fenced = 5,
}
