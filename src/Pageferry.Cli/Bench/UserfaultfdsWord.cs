namespace Pageferry.Cli;

/// <summary>The words for how many userfaultfds share the vCPUs' memory, in options and in JSON.</summary>
internal static class UserfaultfdsWord
{
    internal const string One = "one";
    internal const string PerVcpu = "per-vcpu";

    internal static string Of(bool isSingle) => isSingle ? One : PerVcpu;
}
