using Pageferry.Memory;

namespace Pageferry.Cli;

/// <summary>What <c>bench demand-paging</c> measures.</summary>
/// <param name="Vcpus">How many vCPUs touch memory at once.</param>
/// <param name="BytesPerVcpu">Bytes that each touches; a page multiple.</param>
/// <param name="Backing">What holds the memory.</param>
/// <param name="Delivery">How a vCPU gets its pages.</param>
/// <param name="IsMinor">Whether the content is in the memory already.</param>
/// <param name="IsSingleUserfaultfd">Whether one userfaultfd serves all vCPUs, rather than each one's slice having its own.</param>
/// <param name="Readers">Reader threads per userfaultfd.</param>
/// <param name="Delay">How long the page source takes for each page.</param>
/// <param name="IsOverlapping">Whether all vCPUs touch the same memory, each in an order of its own.</param>
/// <param name="Cpus">The CPUs that the vCPUs' threads and then the readers run on, in turn; none for any.</param>
internal sealed record PagingOptions(
    int Vcpus,
    ulong BytesPerVcpu,
    GuestBacking Backing,
    PagingDelivery Delivery,
    bool IsMinor,
    bool IsSingleUserfaultfd,
    int Readers,
    TimeSpan Delay,
    bool IsOverlapping,
    IReadOnlyList<int> Cpus)
{
    /// <summary>Pages that each vCPU touches.</summary>
    internal ulong PagesPerVcpu => BytesPerVcpu / Page.Size;

    /// <summary>Bytes that are touched by one vCPU or more.</summary>
    internal UInt128 TotalBytes => IsOverlapping ? BytesPerVcpu : (UInt128)BytesPerVcpu * (UInt128)Vcpus;

    /// <summary>The CPU of a thread; the vCPUs' threads come first.</summary>
    /// <param name="thread">The thread's number.</param>
    /// <returns>The CPU; null for any.</returns>
    internal int? CpuOf(int thread) => Cpus.Count == 0 ? null : Cpus[thread % Cpus.Count];
}
