namespace Pageferry.Cli;

/// <summary>The words for the privilege that a guest starts with.</summary>
internal static class GuestPrivilegeWord
{
    /// <summary>CPL 3 with IOPL 3.</summary>
    internal const string User = "user";

    /// <summary>CPL 0.</summary>
    internal const string Kernel = "kernel";
}
