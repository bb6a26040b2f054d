using Pageferry.Memory;

namespace Pageferry.Cli;

/// <summary>The words for where the engine runs that takes a guest in.</summary>
internal static class EngineWord
{
    /// <summary>In the guest's process.</summary>
    internal const string Inside = "inside";

    /// <summary>In a process of its own.</summary>
    internal const string Separate = "separate";

    /// <summary>All words.</summary>
    internal static string[] All { get; } = [Inside, Separate];

    /// <summary>Why memory can't be shared with an engine in a process of its own; null if it can.</summary>
    /// <param name="backing">What is to hold it.</param>
    internal static string? WhyNotSeparate(GuestBacking backing) => backing is GuestBacking.Memfd or GuestBacking.Memfd2M
        ? null
        : $"An engine in a process of its own needs memory that two processes can share, and {BackingWord.Of(backing)} memory is none. Give the destination --backing {BackingWord.Memfd}.";
}
