namespace Pageferry.Cli;

/// <summary>The words for the kind of a userfault, in options and in JSON.</summary>
internal static class UserfaultWord
{
    /// <summary>The page has no content: it is copied in.</summary>
    internal const string Missing = "missing";

    /// <summary>The page's content is in the memory file: it is mapped.</summary>
    internal const string Minor = "minor";

    internal static string Of(bool isMinor) => isMinor ? Minor : Missing;
}
