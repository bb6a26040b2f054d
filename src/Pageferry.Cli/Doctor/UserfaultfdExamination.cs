using Pageferry.Linux;
using Pageferry.Memory;

namespace Pageferry.Cli;

/// <summary>What userfaultfd can do here.</summary>
internal sealed record UserfaultfdExamination
{
    /// <summary>Whether a userfaultfd that sees the kernel's faults too can be opened.</summary>
    public required bool Usable { get; init; }

    /// <summary>Why not and what grants it; null when it can.</summary>
    public string? Error { get; init; }

    /// <summary>The features that the kernel grants this process, by their C names without <c>UFFD_FEATURE_</c>.</summary>
    public required IReadOnlyList<string> Features { get; init; }

    /// <summary>Examines this machine: asks the kernel for each feature on a descriptor of its own.</summary>
    /// <returns>What was found.</returns>
    internal static UserfaultfdExamination Examine() => WhyNot(UserfaultfdFeatures.None) is { } error
        ? new UserfaultfdExamination { Usable = false, Error = error, Features = [] }
        : new UserfaultfdExamination
        {
            Usable = true,
            Features = [.. Names.Where(entry => WhyNot(entry.Feature) is null).Select(entry => entry.Name)],
        };

    /// <summary>What a guest's memory needs while it arrives.</summary>
    /// <param name="backing">What holds the memory.</param>
    /// <returns>To be told of removals; on a memfd also both kinds of fault of shared memory, of huge pages where it is made of them.</returns>
    internal static UserfaultfdFeatures NeededFor(GuestBacking backing) => UserfaultfdFeatures.EventRemove | backing switch
    {
        GuestBacking.Memfd => UserfaultfdFeatures.MissingShmem | UserfaultfdFeatures.MinorShmem,
        GuestBacking.Memfd2M => UserfaultfdFeatures.MissingHugetlbfs | UserfaultfdFeatures.MinorHugetlbfs,
        _ => UserfaultfdFeatures.None,
    };

    /// <summary>Why a userfaultfd with some features can't be had.</summary>
    /// <param name="features">The features.</param>
    /// <returns>What was tried, the kernel's answer and what to do; null when it can be had.</returns>
    internal static string? WhyNot(UserfaultfdFeatures features)
    {
        try
        {
            Userfaultfd.Open(features).Dispose();
            return null;
        }
        catch (LinuxException e)
        {
            return e.Message;
        }
    }

    private static IEnumerable<(UserfaultfdFeatures Feature, string Name)> Names =>
    [
        (UserfaultfdFeatures.PageFaultFlagWriteProtect, "PAGEFAULT_FLAG_WP"),
        (UserfaultfdFeatures.EventFork, "EVENT_FORK"),
        (UserfaultfdFeatures.EventRemap, "EVENT_REMAP"),
        (UserfaultfdFeatures.EventRemove, "EVENT_REMOVE"),
        (UserfaultfdFeatures.MissingHugetlbfs, "MISSING_HUGETLBFS"),
        (UserfaultfdFeatures.MissingShmem, "MISSING_SHMEM"),
        (UserfaultfdFeatures.EventUnmap, "EVENT_UNMAP"),
        (UserfaultfdFeatures.Sigbus, "SIGBUS"),
        (UserfaultfdFeatures.ThreadId, "THREAD_ID"),
        (UserfaultfdFeatures.MinorHugetlbfs, "MINOR_HUGETLBFS"),
        (UserfaultfdFeatures.MinorShmem, "MINOR_SHMEM"),
        (UserfaultfdFeatures.ExactAddress, "EXACT_ADDRESS"),
        (UserfaultfdFeatures.WriteProtectHugetlbfsShmem, "WP_HUGETLBFS_SHMEM"),
        (UserfaultfdFeatures.WriteProtectUnpopulated, "WP_UNPOPULATED"),
        (UserfaultfdFeatures.Poison, "POISON"),
        (UserfaultfdFeatures.WriteProtectAsync, "WP_ASYNC"),
        (UserfaultfdFeatures.Move, "MOVE"),
    ];
}
