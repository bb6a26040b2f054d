using System.Runtime.InteropServices;

namespace Pageferry.Linux;

internal static partial class Interop
{
    internal const ulong UFFD_API = 0xAA;
    internal const int UFFD_USER_MODE_ONLY = 1;
    internal const nuint USERFAULTFD_IOC_NEW = 0xaa00;

    internal const nuint UFFDIO_API = 0xc018aa3f;
    internal const nuint UFFDIO_REGISTER = 0xc020aa00;
    internal const nuint UFFDIO_UNREGISTER = 0x8010aa01;
    internal const nuint UFFDIO_WAKE = 0x8010aa02;
    internal const nuint UFFDIO_COPY = 0xc028aa03;
    internal const nuint UFFDIO_ZEROPAGE = 0xc020aa04;
    internal const nuint UFFDIO_MOVE = 0xc028aa05;
    internal const nuint UFFDIO_WRITEPROTECT = 0xc018aa06;
    internal const nuint UFFDIO_CONTINUE = 0xc020aa07;
    internal const nuint UFFDIO_POISON = 0xc020aa08;

    /// <summary>The number of the userfaultfd system call.</summary>
    internal static int SYS_userfaultfd => UserfaultfdNumber(RuntimeInformation.ProcessArchitecture);

    internal static int UserfaultfdNumber(Architecture architecture) => architecture == Architecture.Arm64 ? 282 : 323;

    [LibraryImport(Libraries.C, EntryPoint = "syscall", SetLastError = true)]
    internal static partial long Syscall(long number, long argument);

    [StructLayout(LayoutKind.Sequential)]
    internal struct uffdio_api
    {
        internal ulong api;
        internal ulong features;
        internal ulong ioctls;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct uffdio_range
    {
        internal ulong start;
        internal ulong len;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct uffdio_register
    {
        internal uffdio_range range;
        internal ulong mode;
        internal ulong ioctls;
    }

    /// <summary>uffdio_copy and uffdio_move: the same shape.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct uffdio_copy
    {
        internal ulong dst;
        internal ulong src;
        internal ulong len;
        internal ulong mode;

        /// <summary>Bytes copied, or a negative errno.</summary>
        internal long copy;
    }

    /// <summary>uffdio_zeropage, uffdio_continue and uffdio_poison: the same shape.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct uffdio_zeropage
    {
        internal uffdio_range range;
        internal ulong mode;

        /// <summary>Bytes done, or a negative errno.</summary>
        internal long zeropage;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct uffdio_writeprotect
    {
        internal uffdio_range range;
        internal ulong mode;
    }
}
