using System.Runtime.Intrinsics.X86;

namespace Pageferry.Vmm;

/// <summary>Where the processor's XSAVE areas hold what (CPUID leaf 0xD), which differs from one processor to the next.</summary>
internal static class XsaveLayout
{
    /// <summary>The state components of vectors and masks, by their bits in XCR0.</summary>
    internal const int Avx = 2;
    internal const int Masks = 5;
    internal const int UpperHalves = 6;
    internal const int UpperVectors = 7;

    private const int Leaf = 0xD;
    private const int Components = 63;
    private const int LegacyAndHeaderBytes = 512 + 64;
    private const int Alignment = 64;

    private static readonly int[] s_offsets = new int[Components];
    private static readonly int[] s_sizes = new int[Components];

    // Asked once: in a virtual machine CPUID is an exit.
    static XsaveLayout()
    {
        for (int component = Avx; component < Components; component++)
        {
            (s_sizes[component], s_offsets[component], _, _) = X86Base.CpuId(Leaf, component);
        }
    }

    /// <summary>Where a component lies in an area of the standard format; 0 if it has no place there.</summary>
    internal static int Offset(int component) => s_offsets[component];

    /// <summary>The bytes of an area.</summary>
    /// <param name="components">The components that are saved or restored. The compacted format is never longer than the standard one.</param>
    /// <param name="withSupervisor">Count those too that only the compacted format has.</param>
    internal static ulong Bytes(ulong components, bool withSupervisor)
    {
        int end = LegacyAndHeaderBytes;
        int supervisor = 0;
        for (int component = Avx; component < Components; component++)
        {
            if (s_offsets[component] == 0)
            {
                supervisor += (s_sizes[component] + Alignment - 1) & -Alignment;
            }
            else if ((components >> component & 1) != 0)
            {
                end = Math.Max(end, s_offsets[component] + s_sizes[component]);
            }
        }

        return (ulong)(end + (withSupervisor ? supervisor : 0));
    }
}
