using Pageferry.Memory;

namespace Pageferry.Cli;

/// <summary>The words for what holds a guest's memory, in options and in JSON.</summary>
internal static class BackingWord
{
    /// <summary>A memfd.</summary>
    internal const string Memfd = "memfd";

    /// <summary>A memfd of 2 MiB pages.</summary>
    internal const string Memfd2M = "memfd-2m";

    /// <summary>Private anonymous memory.</summary>
    internal const string Anonymous = "anonymous";

    /// <summary>A guest_memfd of KVM's.</summary>
    internal const string GuestMemfd = "guest-memfd";

    /// <summary>All words.</summary>
    internal static string[] All { get; } = [Memfd, Memfd2M, Anonymous, GuestMemfd];

    /// <summary>The word for a backing.</summary>
    /// <param name="backing">What holds the memory.</param>
    /// <returns>One of the constants of this type.</returns>
    internal static string Of(GuestBacking backing) => backing switch
    {
        GuestBacking.Memfd => Memfd,
        GuestBacking.Memfd2M => Memfd2M,
        GuestBacking.GuestMemfd => GuestMemfd,
        _ => Anonymous,
    };

    /// <summary>The backing for a word.</summary>
    /// <param name="word">One of the constants of this type.</param>
    /// <returns>What holds the memory.</returns>
    internal static GuestBacking Parse(string word) => word switch
    {
        Memfd => GuestBacking.Memfd,
        Memfd2M => GuestBacking.Memfd2M,
        GuestMemfd => GuestBacking.GuestMemfd,
        _ => GuestBacking.Anonymous,
    };
}
