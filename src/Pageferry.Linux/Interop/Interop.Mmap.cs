using System.Runtime.InteropServices;

namespace Pageferry.Linux;

internal static partial class Interop
{
    internal const int PROT_NONE = 0;
    internal const int PROT_READ = 1;
    internal const int PROT_WRITE = 2;
    internal const int PROT_EXEC = 4;

    internal const int MAP_SHARED = 0x01;
    internal const int MAP_PRIVATE = 0x02;
    internal const int MAP_FIXED = 0x10;
    internal const int MAP_ANONYMOUS = 0x20;
    internal const int MAP_NORESERVE = 0x4000;
    internal const int MAP_HUGETLB = 0x40000;

    /// <summary>log2 of the huge page size, shifted by MAP_HUGE_SHIFT: 21 is 2 MiB.</summary>
    internal const int MAP_HUGE_2MB = 21 << 26;

    internal const int MREMAP_MAYMOVE = 1;
    internal const int MREMAP_FIXED = 2;

    /// <summary>What mmap and mremap return on failure.</summary>
    internal static readonly nint MAP_FAILED = -1;

    [LibraryImport(Libraries.C, EntryPoint = "mmap", SetLastError = true)]
    internal static partial nint Mmap(nint address, nuint length, int protection, int flags, int fd, long offset);

    [LibraryImport(Libraries.C, EntryPoint = "munmap", SetLastError = true)]
    internal static partial int Munmap(nint address, nuint length);

    [LibraryImport(Libraries.C, EntryPoint = "mremap", SetLastError = true)]
    internal static partial nint Mremap(nint address, nuint length, nuint newLength, int flags, nint newAddress);

    [LibraryImport(Libraries.C, EntryPoint = "mprotect", SetLastError = true)]
    internal static partial int Mprotect(nint address, nuint length, int protection);

    [LibraryImport(Libraries.C, EntryPoint = "madvise", SetLastError = true)]
    internal static partial int Madvise(nint address, nuint length, int advice);

    /// <summary>A copy in native code: the only way managed code may touch memory that may be missing.</summary>
    [LibraryImport(Libraries.C, EntryPoint = "memcpy")]
    internal static unsafe partial void* Memcpy(void* destination, void* source, nuint length);
}
