using Pageferry.Memory;

namespace Pageferry.Cli;

/// <summary>What was measured, as the reports of <c>bench demand-paging --json</c> tell it.</summary>
/// <param name="Vcpus">vCPUs that touched memory at once.</param>
/// <param name="BytesPerVcpu">Bytes that each touched.</param>
/// <param name="PagesPerVcpu">The same in pages.</param>
/// <param name="Backing">What held the memory.</param>
/// <param name="Userfault"><c>missing</c> or <c>minor</c>.</param>
/// <param name="Userfaultfds"><c>one</c> or <c>per-vcpu</c>.</param>
/// <param name="Readers">Reader threads per userfaultfd.</param>
/// <param name="DelayUs">How long the page source took for each page, in microseconds.</param>
/// <param name="Overlap">Whether all vCPUs touched the same memory.</param>
/// <param name="Cpus">The CPUs that threads were kept on; empty for any.</param>
internal sealed record PagingSettings(
    int Vcpus,
    ulong BytesPerVcpu,
    ulong PagesPerVcpu,
    string Backing,
    string Userfault,
    string Userfaultfds,
    int Readers,
    double DelayUs,
    bool Overlap,
    IReadOnlyList<int> Cpus)
{
    /// <summary>Tells options.</summary>
    /// <param name="options">The options.</param>
    internal static PagingSettings Of(PagingOptions options) => new(
        options.Vcpus,
        options.BytesPerVcpu,
        options.PagesPerVcpu,
        BackingWord.Of(options.Backing),
        UserfaultWord.Of(options.IsMinor),
        UserfaultfdsWord.Of(options.IsSingleUserfaultfd),
        options.Readers,
        options.Delay.TotalMicroseconds,
        options.IsOverlapping,
        options.Cpus);
}
