using System.Runtime.InteropServices;

namespace Pageferry.Linux;

internal static partial class Interop
{
    internal const int O_RDONLY = 0;
    internal const int O_RDWR = 2;

    /// <summary>The same value on x86-64 and arm64.</summary>
    internal const int O_NONBLOCK = 0x800;

    /// <summary>The same value on x86-64 and arm64.</summary>
    internal const int O_CLOEXEC = 0x80000;

    [LibraryImport(Libraries.C, EntryPoint = "open", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int Open(string path, int flags);
}
