using System.Runtime.InteropServices;

namespace Pageferry.Linux;

internal static partial class Interop
{
    internal const nuint PAGEMAP_SCAN = 0xc0606610;

    internal const ulong PM_SCAN_WP_MATCHING = 1;
    internal const ulong PM_SCAN_CHECK_WPASYNC = 2;

    /// <summary>mincore(2): a byte for each page.</summary>
    [LibraryImport(Libraries.C, EntryPoint = "mincore", SetLastError = true)]
    internal static unsafe partial int Mincore(nint address, nuint length, byte* pages);

    [StructLayout(LayoutKind.Sequential)]
    internal struct pm_scan_arg
    {
        internal ulong size;
        internal ulong flags;
        internal ulong start;
        internal ulong end;
        internal ulong walk_end;
        internal ulong vec;
        internal ulong vec_len;
        internal ulong max_pages;
        internal ulong category_inverted;
        internal ulong category_mask;
        internal ulong category_anyof_mask;
        internal ulong return_mask;
    }
}
