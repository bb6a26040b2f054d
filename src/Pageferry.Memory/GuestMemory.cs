using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>
/// A guest's memory: regions of guest physical addresses, seen through a guest view that may fault and, where the backing has
/// one, a host view that never does.
/// </summary>
/// <remarks>
/// <para>
/// Pages are numbered densely over all regions, in the order of the regions: page 0 is the first page of the first region.
/// </para>
/// <para>
/// The guest view is touched by <c>KVM_RUN</c> and by the kernel only. No pointer, ref or span of it leaves this type: managed code
/// that waited for a missing page would hang the first garbage collection.
/// </para>
/// </remarks>
public sealed class GuestMemory : IDisposable
{
    /// <summary>The most regions a guest's memory may have.</summary>
    public const int MaxRegions = 64;

    private readonly GuestAddresses _addresses;
    private readonly MemoryFile? _file;
    private readonly MappedRegion? _ownView;
    private readonly ForeignView? _foreignView;
    private readonly MappedRegion? _hostView;
    private readonly IGuestViewOwner? _owner;
    private readonly ulong _viewOfOwner;
    private readonly Lock _collapsing = new();

    /// <summary>Guards who has the guest view's userfaults, and how many removals are under way.</summary>
    private readonly object _registration = new();
    private int _removals;
    private bool _isHandedOver;
    private IPagePlacer? _placer;
    private bool _isShared;
    private bool _isDisposed;

    private GuestMemory(GuestAddresses addresses, GuestBacking backing, MemoryFile? file, MappedRegion guestView, MappedRegion? hostView)
    {
        _addresses = addresses;
        Backing = backing;
        _file = file;
        _ownView = guestView;
        _hostView = hostView;
    }

    private GuestMemory(GuestAddresses addresses, ForeignView view, Userfaultfd userfaultfd, ForeignRecord? record)
    {
        _addresses = addresses;
        Backing = GuestBacking.Anonymous;
        _foreignView = view;
        Record = record;
        RegisterWith(FaultDelivery.Queue, new ForeignPlacer(view, userfaultfd));
    }

    private GuestMemory(GuestAddresses addresses, GuestBacking backing, MemoryFile file, GuestViewShare view, Userfaultfd userfaultfd, IGuestViewOwner owner)
    {
        _addresses = addresses;
        Backing = backing;
        _file = file;
        _hostView = file.Map(addresses.Size);
        _viewOfOwner = view.Address;
        _owner = owner;
        RegisterWith(FaultDelivery.Queue, new RemotePlacer(this, userfaultfd, owner));
    }

    /// <summary>The regions, in ascending order of address.</summary>
    public IReadOnlyList<GuestRegion> Regions => _addresses.Regions;

    /// <summary>The number of pages in all regions.</summary>
    public ulong PageCount => _addresses.PageCount;

    /// <summary>The number of bytes in all regions.</summary>
    public ulong Size => _addresses.Size;

    /// <summary>What the memory is made of.</summary>
    public GuestBacking Backing { get; }

    /// <summary>Whether there is a second mapping that never faults, so that <see cref="HostView"/> works.</summary>
    public bool HasHostView => _hostView is not null;

    /// <summary>Bytes that are faulted in at once, and the unit in which memory is armed: 4096, or 2 MiB for huge pages.</summary>
    public ulong FaultSize => FaultSizeOf(Backing);

    /// <summary>Whether accesses to the guest view can be userfaults: <see cref="Register"/> was called and <see cref="Unregister"/> was not.</summary>
    public bool IsRegistered => _placer is not null;

    /// <summary>Whether the process lives whose memory this is: asked of the kernel, since nothing tells when another process ends.</summary>
    public bool IsAlive => _placer is not ForeignPlacer foreign || foreign.IsAlive;

    /// <summary>What outlives this process of another process's memory; null if nothing does.</summary>
    public ForeignRecord? Record { get; }

    /// <summary>How userfaults are delivered while the memory is registered.</summary>
    public FaultDelivery Delivery { get; private set; }

    /// <summary>Pages that are faulted in at once: 1, or 512 for huge pages.</summary>
    internal ulong FaultPages => FaultSize / Page.Size;

    /// <summary>The mapping that the guest sees, for the placers: never to be read through.</summary>
    internal MappedRegion GuestView => _ownView ?? throw new InvalidOperationException("The memory is another process's: there is no view of it here.");

    /// <summary>Whether pages may be moved or unmapped, and end up outside of what is registered: another process's memory.</summary>
    internal bool MayVanish => _foreignView is not null;

    /// <summary>The second mapping, which never faults; null where there is none.</summary>
    internal MappedRegion? SecondView => _hostView;

    /// <summary>How pages get in and out while the memory is registered.</summary>
    internal IPagePlacer Placer => _placer ?? throw new InvalidOperationException("The memory is not registered for userfaults.");

    /// <summary>
    /// Is held while pages are removed, and while any are hidden: content that is moved out of the guest's sight in the midst of its removal would come back. Never taken on the
    /// fault path.
    /// </summary>
    internal Lock Removing { get; } = new();

    /// <summary>Resolves a fault that a copy from or into the guest view met while faults are delivered as exits.</summary>
    internal Action<ulong>? Resolver { get; set; }

    /// <summary>What makes huge pages of this memory, or made them; null if nothing does.</summary>
    public HugePageCollapse? Collapse { get; private set; }

    /// <summary>Hears of pages before they are removed, where no userfaultfd tells it.</summary>
    internal Action<ulong, ulong>? Unpublished { get; set; }

    /// <summary>Hears of pages that were removed: the first, and how many.</summary>
    internal event Action<ulong, ulong>? Removed;

    /// <summary>Makes memory of one region at guest physical address 0.</summary>
    /// <param name="size">Bytes; a page multiple, not zero.</param>
    /// <param name="backing">What to make it of.</param>
    /// <returns>The memory, which the caller disposes after its vCPUs have stopped.</returns>
    /// <exception cref="ArgumentException">The size is zero or not a page multiple.</exception>
    /// <exception cref="LinuxException">The host can't map that much.</exception>
    public static GuestMemory Create(ulong size, GuestBacking backing = GuestBacking.Memfd) =>
        Create([new GuestRegion(0, size)], backing);

    /// <summary>Makes memory of several regions.</summary>
    /// <param name="regions">1 to <see cref="MaxRegions"/> regions: page multiples, not empty, ascending, not overlapping.</param>
    /// <param name="backing">What to make it of.</param>
    /// <returns>The memory, which the caller disposes after its vCPUs have stopped.</returns>
    /// <exception cref="ArgumentException">The regions break a rule, or the backing is one that is not made here; the message says which.</exception>
    /// <exception cref="LinuxException">The host can't map that much.</exception>
    public static GuestMemory Create(IReadOnlyList<GuestRegion> regions, GuestBacking backing = GuestBacking.Memfd)
    {
        GuestAddresses addresses = Checked(regions, FaultSizeOf(backing));
        return backing switch
        {
            GuestBacking.Anonymous => new GuestMemory(addresses, backing, file: null, MappedRegion.MapAnonymous(addresses.Size), hostView: null),
            GuestBacking.GuestMemfd => throw new ArgumentException("A guest_memfd is made by KVM: memory is made around it.", nameof(backing)),
            _ => Map(addresses, backing, MemoryFile.Create("guest", addresses.Size, hugePages: backing == GuestBacking.Memfd2M)),
        };
    }

    /// <summary>Makes memory around a guest_memfd.</summary>
    /// <param name="regions">As for memory that is made here.</param>
    /// <param name="guestMemfd">The guest_memfd, as long as all regions; owned by the memory, also when this fails.</param>
    /// <returns>The memory, which the caller disposes after its vCPUs have stopped.</returns>
    /// <exception cref="ArgumentException">The regions break a rule, or are longer than the file; the message says which.</exception>
    /// <exception cref="LinuxException">The file can't be mapped.</exception>
    public static GuestMemory Create(IReadOnlyList<GuestRegion> regions, MemoryFile guestMemfd)
    {
        try
        {
            GuestAddresses addresses = Checked(regions, Page.Size);
            ArgumentOutOfRangeException.ThrowIfGreaterThan(addresses.Size, guestMemfd.Length, nameof(regions));
            return Map(addresses, GuestBacking.GuestMemfd, guestMemfd);
        }
        catch
        {
            guestMemfd.Dispose();
            throw;
        }
    }

    /// <summary>Makes memory around a file of memory that another process made and handed over, directly or through somebody who kept it.</summary>
    /// <param name="regions">As for memory that is made here.</param>
    /// <param name="backing"><see cref="GuestBacking.Memfd"/> or <see cref="GuestBacking.Memfd2M"/>: what the file was made as.</param>
    /// <param name="file">The file, as long as all regions; owned by the memory, also when this fails.</param>
    /// <returns>The memory, which the caller disposes.</returns>
    /// <exception cref="ArgumentException">The regions break a rule, are not as long as the file, or have no file; the message says which.</exception>
    /// <exception cref="LinuxException">The file can't be mapped.</exception>
    public static GuestMemory Create(IReadOnlyList<GuestRegion> regions, GuestBacking backing, MemoryFile file)
    {
        try
        {
            CheckShared(backing);
            GuestAddresses addresses = Checked(regions, FaultSizeOf(backing));
            return file.Length == addresses.Size
                ? Map(addresses, backing, file)
                : throw new ArgumentException($"The guest's memory has {addresses.Size} bytes and its file {file.Length}.", nameof(file));
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>The file that holds the memory, for a process that is to go on with it (<see cref="Create(IReadOnlyList{GuestRegion}, GuestBacking, MemoryFile)"/>).</summary>
    /// <returns>A duplicate of its descriptor, which the caller disposes.</returns>
    /// <exception cref="ArgumentException">The memory has no file that two processes can share.</exception>
    /// <exception cref="LinuxException">The process has too many open files.</exception>
    public FileDescriptor DuplicateFile()
    {
        CheckShared(Backing);
        return _file!.Descriptor.Duplicate();
    }

    /// <summary>Makes memory around what another process handed over: a userfaultfd of its address space.</summary>
    /// <remarks>
    /// The process registers the ranges itself. There is no view of them here, so nothing can be read, written or armed; pages are placed when they arrive, and the
    /// process may move and unmap them meanwhile. Guest physical addresses, and page numbers with them, stay those of the beginning.
    /// </remarks>
    /// <param name="ranges">
    /// Ranges of the process's addresses whose content is elsewhere: any number, page multiples, not empty, ascending, not overlapping. What it touches outside of
    /// them becomes zeros.
    /// </param>
    /// <param name="userfaultfd">The userfaultfd, owned by the memory from now on; its events are <c>FORK</c>, <c>REMAP</c>, <c>REMOVE</c> and <c>UNMAP</c>, or some of them.</param>
    /// <returns>The memory, registered. Disposing it closes the userfaultfd: what has not arrived then reads as zeros.</returns>
    /// <exception cref="ArgumentException">The ranges break a rule; the message says which.</exception>
    public static GuestMemory OfProcess(IReadOnlyList<GuestRegion> ranges, Userfaultfd userfaultfd)
    {
        var addresses = new GuestAddresses(ranges, Page.Size);
        return new GuestMemory(addresses, new ForeignView(addresses), userfaultfd, record: null);
    }

    /// <summary>Makes memory around what another process handed over, with a record by which somebody else can go on with it (<see cref="FaultEngine.TakeOver"/>).</summary>
    /// <param name="record">The record, begun just now or left by an engine that died; owned by the memory from now on.</param>
    /// <param name="userfaultfd">The userfaultfd, owned by the memory from now on.</param>
    /// <returns>The memory, registered. What has not arrived reads as zeros when nobody has the userfaultfd open any more.</returns>
    /// <exception cref="InvalidDataException">The record can't be of this memory; nothing is owned then.</exception>
    public static GuestMemory OfProcess(ForeignRecord record, Userfaultfd userfaultfd) =>
        new(new GuestAddresses(record.Ranges, Page.Size), record.ReadView(), userfaultfd, record);

    /// <summary>Makes this process's side of memory that another process's guest runs on: a host view of its file, and its userfaultfd.</summary>
    /// <remarks>
    /// Pages are placed in that process's guest view. It keeps its own descriptors, so that the guest stalls and reads no zeros when this process ends. Faults are
    /// delivered by the queue.
    /// </remarks>
    /// <param name="regions">As for memory that is made here.</param>
    /// <param name="backing"><see cref="GuestBacking.Memfd"/> or <see cref="GuestBacking.Memfd2M"/>.</param>
    /// <param name="share">What the other process shares (<see cref="Share"/>), received by this one; its descriptors are owned by the memory, also when this fails.</param>
    /// <param name="owner">Asks that process for what only it can do.</param>
    /// <returns>The memory, registered.</returns>
    /// <exception cref="ArgumentException">The regions break a rule, are not as long as the file, or have no file; the message says which.</exception>
    /// <exception cref="LinuxException">The file can't be mapped.</exception>
    public static GuestMemory OfOwner(IReadOnlyList<GuestRegion> regions, GuestBacking backing, GuestViewShare share, IGuestViewOwner owner)
    {
        try
        {
            CheckShared(backing);
            GuestAddresses addresses = Checked(regions, FaultSizeOf(backing));
            var file = MemoryFile.FromDescriptor(share.File, "guest");
            return file.Length == addresses.Size && share.Address % FaultSizeOf(backing) == 0
                ? new GuestMemory(addresses, backing, file, share, Userfaultfd.FromDescriptor(share.Userfaultfd), owner)
                : throw new ArgumentException($"The guest's memory has {addresses.Size} bytes and its file {file.Length}; its view is at 0x{share.Address:x}.", nameof(share));
        }
        catch
        {
            share.File.Dispose();
            share.Userfaultfd.Dispose();
            throw;
        }
    }

    /// <summary>What another process needs to answer this memory's userfaults (<see cref="OfOwner"/>). The memory is registered, for the queue.</summary>
    /// <returns>Duplicates of the descriptors, which the caller disposes: as long as they are open, the guest stalls and reads no zeros.</returns>
    /// <exception cref="ArgumentException">The memory has no file.</exception>
    /// <exception cref="InvalidOperationException">The memory is not registered.</exception>
    /// <exception cref="LinuxException">The process has too many open files.</exception>
    public GuestViewShare Share()
    {
        CheckShared(Backing);
        Userfaultfd userfaultfd = Placer.Userfaultfd ?? throw new InvalidOperationException("The memory is guarded without a userfaultfd: there is none to share.");
        FileDescriptor file = _file!.Descriptor.Duplicate();
        try
        {
            _isShared = true;
            return new GuestViewShare(GuestView.Address, file, userfaultfd.Descriptor.Duplicate());
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>Unmaps pages from the guest view for an engine in another process (<see cref="IGuestViewOwner.Unmap"/>).</summary>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many pages.</param>
    /// <exception cref="ArgumentOutOfRangeException">The run is not within the memory.</exception>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public void Unmap(ulong page, ulong count)
    {
        _ = _addresses.OffsetOfPages(page, count);
        UnmapFromGuest(page, count);
    }

    /// <summary>The address of a guest physical address in the guest view: for KVM's memory slots and userfaultfd, never to be read through.</summary>
    /// <param name="gpa">A guest physical address within a region.</param>
    /// <returns>The virtual address in this process.</returns>
    /// <exception cref="ArgumentOutOfRangeException">No region holds the address.</exception>
    public ulong GuestViewAddress(ulong gpa) => GuestView.Address + _addresses.OffsetOf(gpa, 1);

    /// <summary>Whether a guest physical address is memory.</summary>
    /// <param name="gpa">Any guest physical address.</param>
    /// <returns>Whether a region holds it.</returns>
    public bool Contains(ulong gpa) => _addresses.Contains(gpa);

    /// <summary>The number of the page that holds a guest physical address.</summary>
    /// <param name="gpa">A guest physical address within a region.</param>
    /// <returns>0 to <see cref="PageCount"/> - 1.</returns>
    /// <exception cref="ArgumentOutOfRangeException">No region holds the address.</exception>
    public ulong PageAt(ulong gpa) => _addresses.OffsetOf(gpa, 1) / Page.Size;

    /// <summary>The guest physical address of a page's first byte.</summary>
    /// <param name="page">0 to <see cref="PageCount"/> - 1.</param>
    /// <returns>The address.</returns>
    /// <exception cref="ArgumentOutOfRangeException">There is no such page.</exception>
    public ulong GpaOf(ulong page) => _addresses.GpaOf(page);

    /// <summary>
    /// Reads as the host: through the host view, which never faults. Memory without one is copied in native code and may wait for
    /// a missing page.
    /// </summary>
    /// <param name="gpa">Where to read; the whole range lies in one region.</param>
    /// <param name="destination">Where to copy to; its length says how much.</param>
    /// <exception cref="ArgumentOutOfRangeException">No region holds the whole range.</exception>
    public void Read(ulong gpa, Span<byte> destination)
    {
        ulong offset = _addresses.OffsetOf(gpa, (ulong)destination.Length);
        if (_hostView is null)
        {
            CopyOut(offset, destination);
        }
        else
        {
            _hostView.Span(offset, destination.Length).CopyTo(destination);
        }
    }

    /// <summary>Writes as the host; see <see cref="Read"/>.</summary>
    /// <param name="gpa">Where to write; the whole range lies in one region.</param>
    /// <param name="source">What to write.</param>
    /// <exception cref="ArgumentOutOfRangeException">No region holds the whole range.</exception>
    public void Write(ulong gpa, ReadOnlySpan<byte> source)
    {
        ulong offset = _addresses.OffsetOf(gpa, (ulong)source.Length);
        if (_hostView is null)
        {
            CopyIn(offset, source);
        }
        else
        {
            source.CopyTo(_hostView.Span(offset, source.Length));
        }
    }

    /// <summary>Reads as the host without ever waiting for a page, or failing by a signal.</summary>
    /// <param name="gpa">Where to read; the whole range lies in one region.</param>
    /// <param name="destination">Where to copy to; its length says how much.</param>
    /// <returns>
    /// Whether all of it was read. Memory without a host view can be read where pages are accessible; while its faults are queued this waits for others all the same.
    /// </returns>
    /// <exception cref="ArgumentOutOfRangeException">No region holds the whole range.</exception>
    public bool TryRead(ulong gpa, Span<byte> destination)
    {
        ulong offset = _addresses.OffsetOf(gpa, (ulong)destination.Length);
        if (_hostView is null)
        {
            return GuestView.TryCopyOut(offset, destination) == destination.Length;
        }

        _hostView.Span(offset, destination.Length).CopyTo(destination);
        return true;
    }

    /// <summary>Writes as the host; see <see cref="TryRead"/>.</summary>
    /// <param name="gpa">Where to write; the whole range lies in one region.</param>
    /// <param name="source">What to write.</param>
    /// <returns>Whether all of it was written.</returns>
    /// <exception cref="ArgumentOutOfRangeException">No region holds the whole range.</exception>
    public bool TryWrite(ulong gpa, ReadOnlySpan<byte> source)
    {
        ulong offset = _addresses.OffsetOf(gpa, (ulong)source.Length);
        if (_hostView is null)
        {
            return GuestView.TryCopyIn(offset, source) == source.Length;
        }

        source.CopyTo(_hostView.Span(offset, source.Length));
        return true;
    }

    /// <summary>Reads as the guest does: through the guest view in native code. A missing page is a userfault, and the call waits for it.</summary>
    /// <param name="gpa">Where to read; the whole range lies in one region.</param>
    /// <param name="destination">Where to copy to; its length says how much.</param>
    /// <exception cref="ArgumentOutOfRangeException">No region holds the whole range.</exception>
    public void ReadAsGuest(ulong gpa, Span<byte> destination) => CopyOut(_addresses.OffsetOf(gpa, (ulong)destination.Length), destination);

    /// <summary>Writes as the guest does; see <see cref="ReadAsGuest"/>.</summary>
    /// <param name="gpa">Where to write; the whole range lies in one region.</param>
    /// <param name="source">What to write.</param>
    /// <exception cref="ArgumentOutOfRangeException">No region holds the whole range.</exception>
    public void WriteAsGuest(ulong gpa, ReadOnlySpan<byte> source) => CopyIn(_addresses.OffsetOf(gpa, (ulong)source.Length), source);

    /// <summary>The host's view of a range: reading a page that has no content yet makes it a page of zeros.</summary>
    /// <param name="gpa">A guest physical address; the whole range lies in one region.</param>
    /// <param name="length">Bytes.</param>
    /// <returns>The bytes, shared with the guest, valid until the memory is disposed.</returns>
    /// <exception cref="InvalidOperationException">The memory has no host view.</exception>
    /// <exception cref="ArgumentOutOfRangeException">No region holds the whole range.</exception>
    public Span<byte> HostView(ulong gpa, int length) => HostViewOrThrow().Span(_addresses.OffsetOf(gpa, (ulong)length), length);

    /// <summary>The host's view of a run of pages.</summary>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many pages; the run may cross from one region to the next.</param>
    /// <returns>The bytes, shared with the guest, valid until the memory is disposed.</returns>
    /// <exception cref="InvalidOperationException">The memory has no host view.</exception>
    /// <exception cref="ArgumentOutOfRangeException">The run is not within the memory.</exception>
    public Span<byte> HostViewOfPages(ulong page, int count) =>
        HostViewOrThrow().Span(_addresses.OffsetOfPages(page, (ulong)count), checked(count * Page.Size));

    /// <summary>Copies a run of pages as the host reads them: of a memfd without mapping them here, which where pages are read once costs more than the copy.</summary>
    /// <param name="page">The first page.</param>
    /// <param name="destination">Where to copy to: a multiple of the page size; the run may cross from one region to the next.</param>
    /// <exception cref="ArgumentOutOfRangeException">The run is not within the memory.</exception>
    public void ReadPages(ulong page, Span<byte> destination)
    {
        ulong offset = _addresses.OffsetOfPages(page, (ulong)destination.Length / Page.Size);
        if (HasMemfd)
        {
            _file!.Read(offset, destination);
        }
        else if (_hostView is null)
        {
            CopyOut(offset, destination);
        }
        else
        {
            _hostView.Span(offset, destination.Length).CopyTo(destination);
        }
    }

    /// <summary>
    /// Writes a run of pages that arrive, before the guest runs: a memfd's without mapping them here, which no dirty tracker sees. Memory without a host view has to be
    /// accessible.
    /// </summary>
    /// <param name="page">The first page.</param>
    /// <param name="source">What to write: a multiple of the page size; the run may cross from one region to the next.</param>
    /// <exception cref="ArgumentOutOfRangeException">The run is not within the memory.</exception>
    public void WritePages(ulong page, ReadOnlySpan<byte> source)
    {
        ulong offset = _addresses.OffsetOfPages(page, (ulong)source.Length / Page.Size);
        if (Backing == GuestBacking.Memfd)
        {
            _file!.Write(offset, source);
        }
        else if (_hostView is null)
        {
            GuestView.CopyIn(offset, source);
        }
        else
        {
            source.CopyTo(_hostView.Span(offset, source.Length));
        }
    }

    /// <summary>
    /// The next page that may have content. Everything before it was never written and reads as zero; asking populates nothing.
    /// </summary>
    /// <param name="page">Where to begin.</param>
    /// <returns><paramref name="page"/> or a later one; <see cref="PageCount"/> when only unwritten memory follows.</returns>
    public ulong NextContent(ulong page) =>
        !HasMemfd || page >= PageCount ? Math.Min(page, PageCount) : _file!.NextData(page * Page.Size) / Page.Size;

    /// <summary>The next page that is known to be unwritten; see <see cref="NextContent"/>.</summary>
    /// <param name="page">Where to begin.</param>
    /// <returns><paramref name="page"/> or a later one; <see cref="PageCount"/> when there is none.</returns>
    public ulong NextHole(ulong page) => !HasMemfd || page >= PageCount ? PageCount : _file!.NextHole(page * Page.Size) / Page.Size;

    /// <summary>
    /// Gives a range back to the host, as a balloon does, vCPUs running: it reads as zero until the guest writes to it again. What had not arrived of it is never
    /// fetched, what is tracked for a migration is told as written.
    /// </summary>
    /// <remarks>
    /// Returns when it is done, which takes the fault engine's thread if the memory is registered. A range that is removed by a madvise elsewhere is known to the
    /// engine, but not to who sends the memory away (<see cref="IDirtyTracker"/>). Huge pages go back to the host's pool, and a guest that touches one of them
    /// again needs one that is free.
    /// </remarks>
    /// <param name="gpa">The first guest physical address; a multiple of <see cref="FaultSize"/>.</param>
    /// <param name="length">Bytes; a multiple of <see cref="FaultSize"/>, within one region.</param>
    /// <exception cref="ArgumentException">The range is empty, unaligned or not memory.</exception>
    /// <exception cref="InvalidOperationException">The memory is shared with an engine in another process (<see cref="Share"/>) and registered.</exception>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public void Remove(ulong gpa, ulong length)
    {
        if (_isShared && IsRegistered)
        {
            // An engine that read of it and died would have the page fetched again, with what it had before.
            throw new InvalidOperationException("Memory that an engine in another process fills can't be given back before all of it is here.");
        }

        ulong page = FirstPageOf(gpa, length);
        ulong count = length / Page.Size;
        BeginRemoval();
        try
        {
            lock (Removing)
            {
                if (_placer is { Userfaultfd: null })
                {
                    // The kernel tells nobody.
                    Unpublished?.Invoke(page, count);
                    DropContent(page, count);
                }
                else
                {
                    GuestView.Advise(page * Page.Size, length, HasHostView ? MemoryAdvice.Remove : MemoryAdvice.DontNeed);
                }
            }
        }
        finally
        {
            EndRemoval();
        }

        // Not earlier: who sends the page now sends what it had.
        Removed?.Invoke(page, count);
    }

    /// <summary>
    /// Makes userfaults of accesses to pages of the guest view that are not populated. A fault engine does it when it starts, and then says which pages are armed.
    /// </summary>
    /// <remarks>
    /// What stops the guest belongs to the memory and is given back after the guest view is unmapped: closing a userfaultfd earlier would hand the guest
    /// pages of zeros.
    /// </remarks>
    /// <param name="delivery">How userfaults reach who resolves them.</param>
    /// <exception cref="LinuxException">
    /// userfaultfd is not permitted, or can't do what this backing needs; the message says what grants it. EBUSY: another userfaultfd has the memory.
    /// </exception>
    /// <exception cref="ArgumentException">userfaultfd is not permitted, and this backing has no host view for faults delivered as exits without it.</exception>
    /// <exception cref="InvalidOperationException">The memory is registered already.</exception>
    public void Register(FaultDelivery delivery = FaultDelivery.Queue) => RegisterFor(delivery, vcpusExitByKvm: false);

    /// <summary>As <see cref="Register"/>; where KVM makes the vCPUs' exits itself, all other accesses wait in the queue if there can be one.</summary>
    internal void RegisterFor(FaultDelivery delivery, bool vcpusExitByKvm)
    {
        if (!Enum.IsDefined(delivery))
        {
            throw new ArgumentOutOfRangeException(nameof(delivery), delivery, "There is no such delivery of userfaults.");
        }

        if (IsRegistered)
        {
            throw new InvalidOperationException("The memory is registered for userfaults already.");
        }

        // A huge page is accessible as a whole.
        Collapse?.Stop();
        try
        {
            RegisterWith(delivery, new UserfaultfdPlacer(this, vcpusExitByKvm ? FaultDelivery.Queue : delivery));
        }
        catch (LinuxException refusal) when (Backing == GuestBacking.GuestMemfd && refusal.Errno == Errno.EINVAL)
        {
            throw new LinuxException(
                refusal.Operation, refusal.Errno, "This kernel lacks userfaultfd on guest_memfd, as every release up to Linux 7.2 does. Use a memfd: --backing memfd.");
        }
        catch (LinuxException refusal) when (delivery == FaultDelivery.Exit && refusal.Errno is Errno.EPERM or Errno.EACCES or Errno.ENOSYS)
        {
            RegisterWith(delivery, new ProtectionPlacer(this));
        }
    }

    /// <summary>
    /// Lets the guest go on without userfaults: pages that have no content become zero when touched, and threads that wait are released.
    /// For memory whose every page is present or known to be zero.
    /// </summary>
    /// <exception cref="InvalidOperationException">The memory is not registered.</exception>
    public void Unregister()
    {
        WhileInPlace(() =>
        {
            Placer.Release();
            Resolver = null;
            Unpublished = null;
            Placer.Dispose();
            _placer = null;
        });
    }

    /// <summary>
    /// Begins to make huge pages of small ones, which makes a guest faster and takes as much memory as it has at most: a range of 2 MiB that has any content takes all
    /// of it. Ends by itself, and when the memory is registered.
    /// </summary>
    /// <exception cref="InvalidOperationException">The memory is registered, has huge pages already, or this was called before.</exception>
    /// <exception cref="ObjectDisposedException">The memory is gone.</exception>
    public void BeginCollapse()
    {
        if (IsRegistered || FaultPages > 1 || Collapse is not null)
        {
            throw new InvalidOperationException(
                IsRegistered ? "Memory that is registered for userfaults can't be collapsed: pages that are armed would become accessible."
                    : Collapse is not null ? "The memory is being collapsed, or was." : "The memory has huge pages already.");
        }

        if (_owner is { } owner)
        {
            owner.BeginCollapse();
            return;
        }

        lock (_collapsing)
        {
            ObjectDisposedException.ThrowIf(_isDisposed, this);
            Collapse = new HugePageCollapse(this);
        }
    }

    /// <summary>Unmaps both views, then closes what stopped the guest and the file. The vCPUs must have stopped.</summary>
    public void Dispose()
    {
        lock (_collapsing)
        {
            _isDisposed = true;
            Collapse?.Stop();
        }

        _ownView?.Dispose();
        _hostView?.Dispose();
        _placer?.Dispose();
        _file?.Dispose();
        Record?.Dispose();
    }

    internal void RegisterWith(FaultDelivery delivery, IPagePlacer placer)
    {
        Delivery = delivery;
        _placer = placer;
    }

    /// <summary>
    /// Begins to hand the guest view from one userfaultfd to another and back, in between which nobody would hear of a removal: none begins until <see cref="EndHandingOver"/>, and the memory stays
    /// registered.
    /// </summary>
    /// <returns>False if a removal is under way, or the memory is not registered any more.</returns>
    internal bool TryBeginHandingOver()
    {
        lock (_registration)
        {
            return _isHandedOver = _removals == 0 && IsRegistered;
        }
    }

    /// <summary>Does something while the guest view is with its own userfaultfd, if it has one.</summary>
    internal void WhileInPlace(Action action)
    {
        lock (_registration)
        {
            AwaitHandBack();
            action();
        }
    }

    /// <summary>The guest view has been handed back.</summary>
    internal void EndHandingOver()
    {
        lock (_registration)
        {
            _isHandedOver = false;
            Monitor.PulseAll(_registration);
        }
    }

    /// <summary>Makes the memory of a process that this one forks, as it is now; all placing locks are held.</summary>
    internal GuestMemory ForChild(Userfaultfd userfaultfd) => new(_addresses, new ForeignView(_foreignView!), userfaultfd, Record?.Fork(userfaultfd, _foreignView!));

    /// <inheritdoc cref="GuestAddresses.Locate"/>
    internal (int Region, ulong Within) Locate(ulong page) => _addresses.Locate(page);

    /// <summary>The first page of what is faulted in at once with a page.</summary>
    internal ulong FaultPageOf(ulong page) => page & ~(FaultPages - 1);

    /// <summary>The next pages in a range of addresses of the guest view, as a userfaultfd reports them.</summary>
    /// <param name="address">Where to begin; becomes the first address behind the pages found.</param>
    /// <param name="end">The first address behind the range.</param>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many pages.</param>
    /// <returns>False if there are none: the rest of the range is none of this memory.</returns>
    internal bool TryNextInGuestView(ref ulong address, ulong end, out ulong page, out ulong count)
    {
        if (_foreignView is not null)
        {
            return _foreignView.TryNext(ref address, end, out page, out count);
        }

        page = (address - ViewAddress) / Page.Size;
        count = (end - address) / Page.Size;
        address = end;
        return count > 0;
    }

    /// <summary>Another process unmapped a range of its addresses.</summary>
    internal void UnmapForeign(ulong start, ulong end) => _foreignView!.Unmap(start, end);

    /// <inheritdoc cref="ForeignView.IsEndOfMove"/>
    internal bool IsEndOfMove(ulong start, ulong end) => _foreignView!.IsEndOfMove(start, end);

    /// <summary>Another process moved a range of its addresses.</summary>
    internal void MoveForeign(ulong from, ulong to, ulong length) => _foreignView!.Move(from, to, length);

    /// <summary>What was read of the userfaultfd is acted upon.</summary>
    /// <param name="events">How many messages.</param>
    /// <param name="hasChanged">Whether pages may be elsewhere since, or the process has forked.</param>
    internal void Commit(int events, bool hasChanged) => Record?.Commit(events, hasChanged ? _foreignView : null);

    /// <summary>The address of a page in the guest view, as a userfaultfd takes it.</summary>
    internal ulong GuestViewOfPage(ulong page) => ViewAddress + (page * Page.Size);

    /// <summary>
    /// Makes sure that the file has the huge pages that a run lies in, before they are touched: those that were given back were the reserved ones, and to touch one where no other is free
    /// is SIGBUS. Small pages need no such thing.
    /// </summary>
    /// <returns>False if no huge page is free.</returns>
    internal bool TryTakeHugePages(ulong page, ulong count)
    {
        if (FaultPages == 1)
        {
            return true;
        }

        ulong first = FaultPageOf(page);
        return HostViewOrThrow().TryPopulate(first * Page.Size, (FaultPageOf(page + count - 1) + FaultPages - first) * Page.Size);
    }

    /// <summary>Unmaps pages from the guest view as the kernel may do at any time: shared content stays where it is.</summary>
    internal void UnmapFromGuest(ulong page, ulong count) => GuestView.Advise(page * Page.Size, count * Page.Size, MemoryAdvice.DontNeed);

    /// <summary>Gives the content of pages back to the host without telling anybody: they read as zero from now on.</summary>
    internal void DropContent(ulong page, ulong count)
    {
        if (_file is null)
        {
            UnmapFromGuest(page, count);
        }
        else
        {
            _file.PunchHole(page * Page.Size, count * Page.Size);
        }
    }

    /// <summary>The first page of a range that is to be armed, disarmed or removed.</summary>
    /// <exception cref="ArgumentException">The range is empty, unaligned, or not within one region.</exception>
    internal ulong FirstPageOf(ulong gpa, ulong length)
    {
        if (length == 0 || gpa % FaultSize != 0 || length % FaultSize != 0)
        {
            throw new ArgumentException($"Memory is armed and removed in units of {FaultSize} bytes, not {length} bytes at guest physical address 0x{gpa:x}.", nameof(length));
        }

        return _addresses.OffsetOf(gpa, length) / Page.Size;
    }

    /// <summary>Copies from the guest view. Where faults are delivered as exits, a touch of a page that is not placed would be a SIGBUS.</summary>
    private void CopyOut(ulong offset, Span<byte> destination)
    {
        if (Resolver is not { } resolve)
        {
            GuestView.CopyOut(offset, destination);
            return;
        }

        for (int done = 0; done < destination.Length;)
        {
            done += GuestView.TryCopyOut(offset + (ulong)done, destination[done..]);
            if (done < destination.Length)
            {
                resolve((offset + (ulong)done) / Page.Size);
            }
        }
    }

    /// <summary>Copies into the guest view; see <see cref="CopyOut"/>.</summary>
    private void CopyIn(ulong offset, ReadOnlySpan<byte> source)
    {
        if (Resolver is not { } resolve)
        {
            GuestView.CopyIn(offset, source);
            return;
        }

        for (int done = 0; done < source.Length;)
        {
            done += GuestView.TryCopyIn(offset + (ulong)done, source[done..]);
            if (done < source.Length)
            {
                resolve((offset + (ulong)done) / Page.Size);
            }
        }
    }

    private void BeginRemoval()
    {
        lock (_registration)
        {
            AwaitHandBack();
            _removals++;
        }
    }

    private void EndRemoval()
    {
        lock (_registration)
        {
            _removals--;
        }
    }

    private void AwaitHandBack()
    {
        while (_isHandedOver)
        {
            _ = Monitor.Wait(_registration);
        }
    }

    /// <summary>Where the guest view begins, in the process that has it.</summary>
    private ulong ViewAddress => _ownView is { } view ? view.Address : _viewOfOwner;

    /// <summary>Whether the file can be read, and asked where it has content.</summary>
    private bool HasMemfd => _file is not null && Backing != GuestBacking.GuestMemfd;

    private static void CheckShared(GuestBacking backing)
    {
        if (backing is not (GuestBacking.Memfd or GuestBacking.Memfd2M))
        {
            throw new ArgumentException($"{backing} memory can't be shared with an engine in another process: only a memfd's can.", nameof(backing));
        }
    }

    private static ulong FaultSizeOf(GuestBacking backing) => backing == GuestBacking.Memfd2M ? 2UL << 20 : Page.Size;

    private static GuestMemory Map(GuestAddresses addresses, GuestBacking backing, MemoryFile file)
    {
        MappedRegion? guestView = null;
        try
        {
            guestView = file.Map(addresses.Size);
            return new GuestMemory(addresses, backing, file, guestView, file.Map(addresses.Size));
        }
        catch
        {
            guestView?.Dispose();
            file.Dispose();
            throw;
        }
    }

    private static GuestAddresses Checked(IReadOnlyList<GuestRegion> regions, ulong unit) => regions.Count is > 0 and <= MaxRegions
        ? new GuestAddresses(regions, unit)
        : throw new ArgumentException($"Guest memory has 1 to {MaxRegions} regions, not {regions.Count}.", nameof(regions));

    private MappedRegion HostViewOrThrow() =>
        _hostView ?? throw new InvalidOperationException($"{Backing} memory has no host view; use Read and Write.");
}
