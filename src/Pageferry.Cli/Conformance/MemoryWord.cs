using Pageferry.Conformance;

namespace Pageferry.Cli;

/// <summary>The words for the memory that conformance cases run on, in options and in JSON.</summary>
internal static class MemoryWord
{
    internal const string Anonymous = "anonymous";
    internal const string Memfd = "memfd";
    internal const string HugeMemfd = "memfd-2m";
    internal const string GuestMemfd = "guest-memfd";
    internal const string PrivateMemfd = "memfd-private";
    internal const string PrivateHugeMemfd = "memfd-2m-private";

    internal static readonly string[] All = [Anonymous, Memfd, PrivateMemfd, HugeMemfd, PrivateHugeMemfd, GuestMemfd];

    internal static string Of(MemoryKind kind) => kind switch
    {
        MemoryKind.Anonymous => Anonymous,
        MemoryKind.Shmem => Memfd,
        MemoryKind.ShmemPrivate => PrivateMemfd,
        MemoryKind.HugetlbPrivate => PrivateHugeMemfd,
        MemoryKind.GuestMemfd => GuestMemfd,
        _ => HugeMemfd,
    };
}
