using Pageferry.Memory;

namespace Pageferry.Cli;

/// <summary>The words for which accesses to armed memory are userfaults, in options and in JSON.</summary>
internal static class SemanticsWord
{
    /// <summary>Any access, whether or not the page was used before.</summary>
    internal const string AnyAccess = "any-access";

    /// <summary>The first access to a page that was never populated.</summary>
    internal const string FirstAccess = "first-access";

    /// <summary>The semantics for a word.</summary>
    /// <param name="word">What a client wrote; null for <see cref="AnyAccess"/>.</param>
    /// <returns>The semantics.</returns>
    /// <exception cref="CommandException">There is no such word.</exception>
    internal static UserfaultSemantics Parse(string? word) => word switch
    {
        null or AnyAccess => UserfaultSemantics.AnyAccess,
        FirstAccess => UserfaultSemantics.FirstAccess,
        _ => throw new CommandException($"There are no semantics '{word}'. Choose one of: {AnyAccess}, {FirstAccess}."),
    };
}
