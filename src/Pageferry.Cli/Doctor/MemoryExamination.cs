using System.Globalization;
using Pageferry.Linux;
using Pageferry.Memory;
using Pageferry.Vmm;

namespace Pageferry.Cli;

/// <summary>What kinds of memory a guest can be made of here.</summary>
internal sealed record MemoryExamination
{
    private const string Unknown = "unknown";

    /// <summary>Whether memory with a file descriptor can be made.</summary>
    public required bool Memfd { get; init; }

    /// <summary>Reserved huge pages of 2 MiB.</summary>
    public required ulong HugePages { get; init; }

    /// <summary>Those of them that are free.</summary>
    public required ulong HugePagesFree { get; init; }

    /// <summary>Transparent huge pages of anonymous memory: <c>always</c>, <c>madvise</c> or <c>never</c>.</summary>
    public required string ThpAnonymous { get; init; }

    /// <summary>Transparent huge pages of shared memory: <c>always</c>, <c>within_size</c>, <c>advise</c>, <c>never</c>, <c>deny</c> or <c>force</c>.</summary>
    public required string ThpShmem { get; init; }

    /// <summary>Examines this machine.</summary>
    /// <returns>What was found.</returns>
    internal static MemoryExamination Examine() => new()
    {
        Memfd = CanMakeMemfd(),
        HugePages = Number("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"),
        HugePagesFree = Number("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"),
        ThpAnonymous = Chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
        ThpShmem = Chosen("/sys/kernel/mm/transparent_hugepage/shmem_enabled"),
    };

    /// <summary>Why a guest can't be received into memory of a kind: tries it with memory of one page.</summary>
    /// <param name="backing">What is to hold the memory.</param>
    /// <param name="delivery">How its userfaults are to be delivered.</param>
    /// <returns>What was tried, the kernel's answer and what to do; null when it can.</returns>
    internal static string? WhyNot(GuestBacking backing, FaultDelivery delivery)
    {
        try
        {
            using GuestMemory memory = MachineMemory.Create([new GuestRegion(0, Page.Size)], backing);
            memory.Register(delivery);
            return null;
        }
        catch (Exception e) when (e is LinuxException or NotSupportedException)
        {
            return e.Message;
        }
    }

    private static bool CanMakeMemfd()
    {
        try
        {
            MemoryFile.Create("doctor", Page.Size).Dispose();
            return true;
        }
        catch (LinuxException)
        {
            return false;
        }
    }

    private static ulong Number(string path) => ulong.TryParse(Text(path).Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out ulong number) ? number : 0;

    // The kernel lists all choices and puts the one in force in brackets: "always [madvise] never".
    private static string Chosen(string path)
    {
        string text = Text(path);
        int open = text.IndexOf('[', StringComparison.Ordinal);
        int close = text.IndexOf(']', StringComparison.Ordinal);
        return open >= 0 && close > open ? text[(open + 1)..close] : Unknown;
    }

    private static string Text(string path)
    {
        try
        {
            return File.ReadAllText(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return string.Empty;
        }
    }
}
