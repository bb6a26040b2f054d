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
    private const ulong NumberPage = ContentPages - 1;

    /// <summary>To fill so much takes longer than most cases: once for all of them.</summary>
    private static readonly Lazy<MappedRegion> s_hugeContent = new(() => MakeContent(HugePageBytes));

    private readonly Lazy<MappedRegion> _content;

    internal Arena(MemoryKind kind)
    {
        Kind = kind;
        _content = IsHuge ? s_hugeContent : new Lazy<MappedRegion>(() => MakeContent(SmallPageBytes));
    }

    /// <summary>Every byte of <see cref="Content"/>, and the number of <see cref="NumberContent"/>.</summary>
    internal const byte ContentByte = 42;

    internal MemoryKind Kind { get; }

    internal ulong PageBytes => IsHuge ? HugePageBytes : SmallPageBytes;

    /// <summary>The address of 7 pages to copy from.</summary>
    internal ulong Content => _content.Value.Address;

    /// <summary>The address of a page whose text is the number 42.</summary>
    internal ulong NumberContent => Content + (NumberPage * PageBytes);

    internal MappedRegion ContentRegion => _content.Value;

    internal bool IsShared => Kind is MemoryKind.Shmem or MemoryKind.Hugetlb or MemoryKind.GuestMemfd;

    internal bool IsHuge => Kind is MemoryKind.Hugetlb or MemoryKind.HugetlbPrivate;

    /// <summary>What missing faults of this memory need.</summary>
    internal UserfaultfdFeatures MissingFeature => Kind switch
    {
        MemoryKind.Shmem or MemoryKind.ShmemPrivate => UserfaultfdFeatures.MissingShmem,
        MemoryKind.Hugetlb or MemoryKind.HugetlbPrivate => UserfaultfdFeatures.MissingHugetlbfs,
        _ => UserfaultfdFeatures.None,
    };

    /// <summary>What minor faults of this memory need.</summary>
    internal UserfaultfdFeatures MinorFeature => Kind switch
    {
        MemoryKind.Shmem or MemoryKind.ShmemPrivate => UserfaultfdFeatures.MinorShmem,
        MemoryKind.Hugetlb or MemoryKind.HugetlbPrivate => UserfaultfdFeatures.MinorHugetlbfs,
        _ => UserfaultfdFeatures.None,
    };

    /// <summary>What write-protect faults of this memory need.</summary>
    internal UserfaultfdFeatures WriteProtectFeature =>
        UserfaultfdFeatures.PageFaultFlagWriteProtect | (Kind != MemoryKind.Anonymous ? UserfaultfdFeatures.WriteProtectHugetlbfsShmem : UserfaultfdFeatures.None);

    /// <summary>Whether the kernel offers features to this process.</summary>
    internal static bool Offers(UserfaultfdFeatures features) => Userfaultfd.Probe() is { Failure: null } probe && (features & ~probe.Features) == UserfaultfdFeatures.None;

    /// <summary>Opens a userfaultfd.</summary>
    /// <exception cref="CaseUnsupportedException">This process may have none, or the kernel lacks a feature.</exception>
    /// <exception cref="LinuxException">The kernel refuses what it offers.</exception>
    internal Userfaultfd Open(UserfaultfdFeatures features = UserfaultfdFeatures.None)
    {
        try
        {
            return Userfaultfd.Open(features);
        }
        catch (LinuxException refusal) when (!Offers(features))
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
            return (IsShared ? MappedRegion.MapShared(file.Descriptor, 0, file.Length) : MappedRegion.MapPrivate(file.Descriptor, 0, file.Length), file);
        }
        catch (LinuxException refusal)
        {
            file.Dispose();
            throw IsHuge && refusal.Errno == Errno.ENOMEM ? new CaseUnsupportedException($"{refusal.Message} Too few huge pages are reserved.") : refusal;
        }
    }

    /// <summary>Has the kernel hold a page where it is.</summary>
    /// <exception cref="CaseUnsupportedException">This process may not, of whatever memory.</exception>
    internal MemoryPin Pin(ulong page)
    {
        try
        {
            MemoryPin.Pin(Content, SmallPageBytes).Dispose();
        }
        catch (LinuxException refusal)
        {
            throw new CaseUnsupportedException(refusal.Message);
        }

        return MemoryPin.Pin(page, SmallPageBytes);
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
        if (!IsHuge && _content.IsValueCreated)
        {
            _content.Value.Dispose();
        }
    }

    private static MappedRegion MakeContent(ulong pageBytes)
    {
        var content = MappedRegion.MapAnonymous(ContentPages * pageBytes);
        content.Span(0, (int)content.Length).Fill(ContentByte);
        "42\0"u8.CopyTo(content.Span(NumberPage * pageBytes, 3));
        return content;
    }

    private MemoryFile MakeFile(ulong length)
    {
        try
        {
            return Kind == MemoryKind.GuestMemfd
                ? MachineMemory.CreateGuestMemfd(length)
                : MemoryFile.Create("conformance", length, hugePages: IsHuge);
        }
        catch (Exception refusal) when ((IsHuge || Kind == MemoryKind.GuestMemfd) && refusal is LinuxException or NotSupportedException)
        {
            throw new CaseUnsupportedException(refusal.Message);
        }
    }
}
