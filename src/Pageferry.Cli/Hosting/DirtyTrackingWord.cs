using Pageferry.Vmm;

namespace Pageferry.Cli;

/// <summary>The words for what tells which pages a guest writes, in options and in JSON.</summary>
internal static class DirtyTrackingWord
{
    /// <summary>What the host is best at.</summary>
    internal const string Auto = "auto";

    /// <summary>KVM's dirty log.</summary>
    internal const string Log = "log";

    /// <summary>KVM's dirty rings.</summary>
    internal const string Ring = "ring";

    /// <summary>The process's page tables, for guests that threads run; not to be asked for.</summary>
    internal const string Scan = "scan";

    /// <summary>The word for what tells a guest's writes.</summary>
    /// <param name="tracking">What tells them.</param>
    /// <returns>One of the constants of this type.</returns>
    internal static string Of(DirtyTracking tracking) => tracking switch
    {
        DirtyTracking.Log => Log,
        DirtyTracking.Ring => Ring,
        DirtyTracking.Scan => Scan,
        _ => Auto,
    };

    /// <summary>What a word asks for.</summary>
    /// <param name="word"><see cref="Auto"/>, <see cref="Log"/> or <see cref="Ring"/>.</param>
    /// <returns>What is to tell a guest's writes.</returns>
    internal static DirtyTracking Parse(string word) => word switch
    {
        Log => DirtyTracking.Log,
        Ring => DirtyTracking.Ring,
        _ => DirtyTracking.Auto,
    };
}
