using System.Runtime.CompilerServices;
using Pageferry.Linux;
using Pageferry.Vmm;

namespace Pageferry.Conformance;

/// <summary>What a case is given: memory of one kind, userfaultfds, and a way to say what it expects.</summary>
internal sealed class Arena : IDisposable
{
    private const ulong SmallPageBytes = 4096;
    private const ulong HugePageBytes = 2 << 20;
    private const ulong ContentPages = 8;

    private readonly Lazy<MappedRegion> _content;

    internal Arena(MemoryKind kind)
    {
        Kind = kind;
        _content = new Lazy<MappedRegion>(() =>
        {
            var content = MappedRegion.MapAnonymous(ContentPages * PageBytes);
            content.Span(0, (int)content.Length).Fill(ContentByte);
            return content;
        });
    }

    /// <summary>Every byte of <see cref="Content"/>.</summary>
    internal const byte ContentByte = 42;

    internal MemoryKind Kind { get; }

    internal ulong PageBytes => Kind == MemoryKind.Hugetlb ? HugePageBytes : SmallPageBytes;

    /// <summary>The address of 8 pages to copy from.</summary>
    internal ulong Content => _content.Value.Address;

    internal MappedRegion ContentRegion => _content.Value;

    internal bool IsShared => Kind != MemoryKind.Anonymous;

    /// <summary>What missing faults of this memory need.</summary>
    internal UserfaultfdFeatures MissingFeature => Kind switch
    {
        MemoryKind.Shmem => UserfaultfdFeatures.MissingShmem,
        MemoryKind.Hugetlb => UserfaultfdFeatures.MissingHugetlbfs,
        _ => UserfaultfdFeatures.None,
    };

    /// <summary>What minor faults of this memory need.</summary>
    internal UserfaultfdFeatures MinorFeature => Kind switch
    {
        MemoryKind.Shmem => UserfaultfdFeatures.MinorShmem,
        MemoryKind.Hugetlb => UserfaultfdFeatures.MinorHugetlbfs,
        _ => UserfaultfdFeatures.None,
    };

    /// <summary>What write-protect faults of this memory need.</summary>
    internal UserfaultfdFeatures WriteProtectFeature =>
        UserfaultfdFeatures.PageFaultFlagWriteProtect | (IsShared ? UserfaultfdFeatures.WriteProtectHugetlbfsShmem : UserfaultfdFeatures.None);

    /// <summary>Opens a userfaultfd.</summary>
    /// <exception cref="CaseUnsupportedException">The kernel refuses it, or lacks a feature.</exception>
    internal Userfaultfd Open(UserfaultfdFeatures features = UserfaultfdFeatures.None)
    {
        try
        {
            return Userfaultfd.Open(features);
        }
        catch (LinuxException refusal)
        {
            throw new CaseUnsupportedException(refusal.Message);
        }
    }

    /// <summary>Maps memory of the case's kind.</summary>
    /// <returns>The mapping, and the file behind it where there is one.</returns>
    /// <exception cref="CaseUnsupportedException">Huge pages are not reserved.</exception>
    internal (MappedRegion Region, MemoryFile? File) Map(ulong pages)
    {
        if (Kind == MemoryKind.Anonymous)
        {
            var region = MappedRegion.MapAnonymous(pages * PageBytes);
            region.Advise(0, region.Length, MemoryAdvice.NoHugePage);
            return (region, null);
        }

        MemoryFile file = MakeFile(pages * PageBytes);
        try
        {
            return (MappedRegion.MapShared(file.Descriptor, 0, file.Length), file);
        }
        catch (LinuxException refusal)
        {
            file.Dispose();
            throw new CaseUnsupportedException(refusal.Message);
        }
    }

    /// <summary>Memory whose missing pages fault.</summary>
    internal Armed ArmMissing(ulong pages, UserfaultfdFeatures more = UserfaultfdFeatures.None) =>
        new(this, pages, UserfaultfdModes.Missing, MissingFeature | more);

    /// <summary>Shared memory whose missing and unmapped pages fault.</summary>
    internal Armed ArmMinor(ulong pages, UserfaultfdFeatures more = UserfaultfdFeatures.None) =>
        new(this, pages, UserfaultfdModes.Missing | UserfaultfdModes.Minor, MissingFeature | MinorFeature | more);

    /// <summary>Memory whose missing pages and whose writes fault.</summary>
    internal Armed ArmWriteProtect(ulong pages, UserfaultfdFeatures more = UserfaultfdFeatures.None) =>
        new(this, pages, UserfaultfdModes.Missing | UserfaultfdModes.WriteProtect, MissingFeature | WriteProtectFeature | more);

    /// <summary>Says what was to be found.</summary>
    /// <exception cref="CaseFailedException">Something else was.</exception>
    internal void Expect<T>(T found, T expected, [CallerArgumentExpression(nameof(found))] string what = "")
    {
        if (!EqualityComparer<T>.Default.Equals(found, expected))
        {
            throw new CaseFailedException($"{what}: expected {expected}, found {found}");
        }
    }

    /// <summary>Says which errno a call has to end with.</summary>
    internal void ExpectRefusal(Action call, Errno expected, [CallerArgumentExpression(nameof(call))] string what = "")
    {
        try
        {
            call();
        }
        catch (LinuxException refusal)
        {
            Expect(refusal.Errno, expected, what);
            return;
        }

        throw new CaseFailedException($"{what}: expected {expected}, found success");
    }

    public void Dispose()
    {
        if (_content.IsValueCreated)
        {
            _content.Value.Dispose();
        }
    }

    private MemoryFile MakeFile(ulong length)
    {
        try
        {
            return Kind == MemoryKind.GuestMemfd
                ? MachineMemory.CreateGuestMemfd(length)
                : MemoryFile.Create("conformance", length, hugePages: Kind == MemoryKind.Hugetlb);
        }
        catch (Exception refusal) when (refusal is LinuxException or NotSupportedException)
        {
            throw new CaseUnsupportedException(refusal.Message);
        }
    }
}
