using Pageferry.Memory;

namespace Pageferry.Cli;

/// <summary>The words for what becomes of the content of memory that is armed, in options and in JSON.</summary>
internal static class ContentWord
{
    /// <summary>The guest finds it again.</summary>
    internal const string Keep = "keep";

    /// <summary>The guest finds zeros.</summary>
    internal const string Drop = "drop";

    /// <summary>What a word says.</summary>
    /// <param name="word">What a client wrote; null for <see cref="Keep"/>.</param>
    /// <returns>What becomes of the content.</returns>
    /// <exception cref="CommandException">There is no such word.</exception>
    internal static ArmedContent Parse(string? word) => word switch
    {
        null or Keep => ArmedContent.Keep,
        Drop => ArmedContent.Drop,
        _ => throw new CommandException($"Content can't become '{word}'. Choose one of: {Keep}, {Drop}."),
    };
}
