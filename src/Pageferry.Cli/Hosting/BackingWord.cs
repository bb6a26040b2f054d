using Pageferry.Memory;

namespace Pageferry.Cli;

/// <summary>The words for what holds a guest's memory, in options and in JSON.</summary>
internal static class BackingWord
{
    /// <summary>A memfd.</summary>
    internal const string Memfd = "memfd";

    /// <summary>Private anonymous memory.</summary>
    internal const string Anonymous = "anonymous";

    /// <summary>The word for a backing.</summary>
    /// <param name="backing">What holds the memory.</param>
    /// <returns>One of the constants of this type.</returns>
    internal static string Of(GuestBacking backing) => backing == GuestBacking.Memfd ? Memfd : Anonymous;

    /// <summary>The backing for a word.</summary>
    /// <param name="word">One of the constants of this type.</param>
    /// <returns>What holds the memory.</returns>
    internal static GuestBacking Parse(string word) => word is Memfd ? GuestBacking.Memfd : GuestBacking.Anonymous;
}
