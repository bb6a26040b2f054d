using System.Buffers.Binary;
using System.Numerics;
using System.Runtime.InteropServices;
using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>
/// What must not be forgotten of another process's memory when the engine that fills it dies: the states of its pages, where they are by now, and what was read of its
/// userfaultfd and not acted upon. It lies in a file of memory that outlives the engine, in a form that other builds can read or refuse by name.
/// </summary>
/// <remarks>
/// <para>
/// The kernel tells a change of the address space once, and lets the process go on when the message is read. So messages are read into the record itself: the kernel writes them there
/// within the read, also if the thread that reads is being killed. They are emptied when all that they tell is done, and until then whoever takes over acts on them.
/// </para>
/// <para>
/// There are two slots. Each is a view, and the messages that were read since. A change of the view is written to the other slot, which then becomes the current one: at any
/// instant one slot is whole. To apply a removal again changes nothing, since a page that was removed stays so.
/// </para>
/// <para>
/// The record of a child that the process forks is kept, together with its userfaultfd, before it is filled: nothing else changes of the parent's record until it is, so that who takes
/// over can fill it too.
/// </para>
/// </remarks>
public sealed class ForeignRecord : IDisposable
{
    /// <summary>The form that this build writes and reads.</summary>
    public const int Version = 1;

    /// <summary>The most messages that are read at once.</summary>
    internal const int Events = 256;

    /// <summary>How many pieces the memory may be in beyond the ranges that it began with.</summary>
    private const int MostPieces = 1 << 16;

    private const int IdBytes = 16;
    private const ulong Magic = 0x4452_464E_4746_5047;
    private const int VersionAt = 8;
    private const int PidAt = 12;
    private const int PageCountAt = 16;
    private const int RangesAt = 24;
    private const int RangeDigestAt = 28;
    private const int IdAt = 32;
    private const int ParentAt = 48;
    private const int ChildNumberAt = 64;
    private const int HeadDigestAt = 72;

    /// <summary>What changes: which slot is the current one, how many children were kept, whether the view was too much for its slot, whether all is there.</summary>
    private const int CurrentAt = 80;
    private const int ChildrenAt = 84;
    private const int IsOutgrownAt = 88;
    private const int IsFilledAt = 92;

    /// <summary>Within a slot.</summary>
    private const int ChildrenBeforeAt = 0;
    private const int SegmentsAt = 4;
    private const int ViewDigestAt = 8;
    private const int EventsAt = 64;

    private readonly MemoryFile _file;
    private readonly NativeBuffer _buffer;
    private readonly GuestRegion[] _ranges;
    private readonly UserfaultfdEventBuffer[] _events;

    /// <summary>Children that were forked, those not counted yet included.</summary>
    private int _forked;

    private ForeignRecord(MemoryFile file, NativeBuffer buffer, GuestRegion[] ranges)
    {
        _file = file;
        _buffer = buffer;
        _ranges = ranges;
        PageCount = PagesOf(ranges);
        States = new PageStates(PageCount, buffer, StatesAt(ranges));
        _events = [EventsOf(0), EventsOf(1)];
    }

    /// <summary>The ranges of the process's addresses whose content is elsewhere.</summary>
    public IReadOnlyList<GuestRegion> Ranges => _ranges;

    /// <summary>Ranges of the process's addresses where its pages are, as far as it is known.</summary>
    public IReadOnlyList<GuestRegion> Mapped => ReadView().Mapped;

    /// <summary>The process whose content its pages have.</summary>
    public int Pid => BinaryPrimitives.ReadInt32LittleEndian(_buffer.Span(PidAt, sizeof(int)));

    /// <summary>The states of its pages.</summary>
    public PageStates States { get; }

    /// <summary>The file that it lies in, for who keeps it.</summary>
    public FileDescriptor Descriptor => _file.Descriptor;

    /// <summary>
    /// Has the records of children kept that the process forks, each with its userfaultfd, and of theirs: called by who reads of it, at once, since the child has nothing but that
    /// descriptor. Null if nobody keeps them.
    /// </summary>
    public Action<ForeignRecord, Userfaultfd>? Forking { get; set; }

    /// <summary>Whether all is there; otherwise it is a child's, to be filled from its parent's (<see cref="FillFrom"/>).</summary>
    public bool IsFilled => Volatile.Read(ref Word(IsFilledAt)) != 0;

    /// <summary>What was read and not acted upon, and what is read next.</summary>
    internal UserfaultfdEventBuffer Unapplied => _events[Current];

    private ulong PageCount { get; }

    private Guid Id => new(_buffer.Span(IdAt, IdBytes));

    private Guid Parent => new(_buffer.Span(ParentAt, IdBytes));

    private int ChildNumber => Word(ChildNumberAt);

    private int Current => Volatile.Read(ref Word(CurrentAt)) & 1;

    private int MostSegments => MostSegmentsOf(_ranges);

    /// <summary>Begins a record.</summary>
    /// <param name="pid">The process whose content its pages have.</param>
    /// <param name="ranges">The ranges of its addresses whose content is elsewhere, as for <see cref="GuestMemory.OfProcess(IReadOnlyList{GuestRegion}, Userfaultfd)"/>.</param>
    /// <returns>The record, which the caller disposes, or the memory that is made with it.</returns>
    /// <exception cref="ArgumentException">The process has more memory than a record is for.</exception>
    /// <exception cref="LinuxException">No memory, or too many open files.</exception>
    public static ForeignRecord Begin(int pid, IReadOnlyList<GuestRegion> ranges)
    {
        var view = new ForeignView(new GuestAddresses(ranges, Page.Size));
        ForeignRecord record = Begin(pid, [.. ranges], Guid.Empty, 0);
        record.Write(0, view);
        Volatile.Write(ref record.Word(IsFilledAt), 1);
        return record;
    }

    /// <summary>Reads what was recorded, by this build or another.</summary>
    /// <param name="file">The file that it lies in; owned by the record, also when this fails.</param>
    /// <param name="rangesOf">The ranges of a process whose content is elsewhere; null if there is no such process.</param>
    /// <returns>The record, which the caller disposes, or the memory that is made with it.</returns>
    /// <exception cref="InvalidDataException">It is none, is of a form that is unknown here, of other content, or damaged; the message says which.</exception>
    /// <exception cref="LinuxException">It can't be mapped.</exception>
    public static ForeignRecord Open(FileDescriptor file, Func<int, IReadOnlyList<GuestRegion>?> rangesOf)
    {
        MemoryFile? opened = null;
        NativeBuffer? buffer = null;
        try
        {
            opened = MemoryFile.FromDescriptor(file, "process-record");
            buffer = opened.Length is >= Page.Size and <= int.MaxValue && opened.Length % Page.Size == 0
                ? new NativeBuffer(opened)
                : throw Damaged($"it has {opened.Length} bytes");
            ReadOnlySpan<byte> head = buffer.Span(0, Page.Size);
            if (BinaryPrimitives.ReadUInt64LittleEndian(head) != Magic)
            {
                throw new InvalidDataException("It is no record of a process's memory.");
            }

            int version = BinaryPrimitives.ReadInt32LittleEndian(head[VersionAt..]);
            if (version != Version)
            {
                throw new InvalidDataException($"It is of version {version}; this build knows version {Version}. Use the build that wrote it.");
            }

            if (BinaryPrimitives.ReadUInt32LittleEndian(head[HeadDigestAt..]) != DigestOf(head[..HeadDigestAt]))
            {
                throw Damaged("the digest of its head is another one");
            }

            int pid = BinaryPrimitives.ReadInt32LittleEndian(head[PidAt..]);
            GuestRegion[] ranges = [.. rangesOf(pid) ?? throw new InvalidDataException($"It is of process {pid}, which these images don't have.")];
            if (BinaryPrimitives.ReadUInt64LittleEndian(head[PageCountAt..]) != PagesOf(ranges)
                || BinaryPrimitives.ReadInt32LittleEndian(head[RangesAt..]) != ranges.Length
                || BinaryPrimitives.ReadUInt32LittleEndian(head[RangeDigestAt..]) != DigestOf(MemoryMarshal.AsBytes(ranges.AsSpan())))
            {
                throw new InvalidDataException($"It is of a process {pid} whose memory is another one than in these images.");
            }

            if (opened.Length < BytesFor(ranges))
            {
                throw Damaged($"it has {opened.Length} bytes of {BytesFor(ranges)}");
            }

            return Checked(new ForeignRecord(opened, buffer, ranges));
        }
        catch (LinuxException) when (opened is null)
        {
            file.Dispose();
            throw;
        }
        catch
        {
            buffer?.Dispose();
            opened?.Dispose();
            throw;
        }
    }

    /// <summary>Counts the children that the process forked and that an engine which died had read of, before another one takes over.</summary>
    /// <param name="kept">The records that are kept.</param>
    /// <returns>How many of these nobody keeps: their userfaultfd has closed with that engine. Usually 0.</returns>
    public int CountChildren(IEnumerable<ForeignRecord> kept)
    {
        int told = 0;
        for (int i = 0; i < Events; i++)
        {
            told += Unapplied[i].Kind == UserfaultfdEventKind.Fork ? 1 : 0;
        }

        // The one after those that were counted may have been kept just before the engine died.
        if (kept.Any(other => other.ChildNumber == Word(ChildrenAt) + 1 && other.Parent == Id))
        {
            Word(ChildrenAt)++;
        }

        _forked = Word(ChildrenAt);
        return Math.Max(0, told - (_forked - Word(SlotAt(Current) + ChildrenBeforeAt)));
    }

    /// <summary>Fills the record of a child whose parent's engine died before it had: as the parent was when it forked.</summary>
    /// <param name="kept">The records that are kept, before anybody has taken over.</param>
    /// <exception cref="InvalidDataException">The parent's is not among them, or tells of no such child.</exception>
    public void FillFrom(IEnumerable<ForeignRecord> kept)
    {
        ForeignRecord parent = kept.FirstOrDefault(other => other.IsFilled && other.Id == Parent)
            ?? throw new InvalidDataException($"It is of a child of process {Pid} that had just been forked, and nothing is kept of its parent. What it lacks can't be brought any more: end it.");
        ForeignView view = parent.ReadView();
        int number = parent.Word(parent.SlotAt(parent.Current) + ChildrenBeforeAt);
        for (int i = 0; i < Events; i++)
        {
            UserfaultfdEvent read = parent.Unapplied[i];
            if (read.Kind == UserfaultfdEventKind.Unmap)
            {
                view.Unmap(read.Start, read.End);
            }
            else if (read.Kind == UserfaultfdEventKind.Remap)
            {
                view.Move(read.RemapFrom, read.RemapTo, read.RemapLength);
            }
            else if (read.Kind == UserfaultfdEventKind.Fork && ++number == ChildNumber)
            {
                Fill(parent.States, view);
                return;
            }
        }

        throw Damaged($"its parent tells of no child {ChildNumber}");
    }

    /// <summary>Unmaps the record. Who keeps its file keeps it.</summary>
    public void Dispose()
    {
        _buffer.Dispose();
        _file.Dispose();
    }

    /// <summary>Where the pages were before <see cref="Unapplied"/>.</summary>
    internal ForeignView ReadView() => ForeignView.Read(SegmentBytes(Current), _ranges);

    /// <summary>All that was read last is done.</summary>
    /// <param name="events">How many messages were read.</param>
    /// <param name="view">Where the pages are now; null if they are where they were.</param>
    internal void Commit(int events, ForeignView? view)
    {
        int slot = Current;
        if (view is not null)
        {
            Write(1 - slot, view);
            Volatile.Write(ref Word(CurrentAt), 1 - slot);
        }

        _events[slot].Clear(events);
    }

    /// <summary>Makes the record of a process that this one forks now, whose pages nobody places or removes meanwhile.</summary>
    internal ForeignRecord Fork(Userfaultfd userfaultfd, ForeignView view)
    {
        ForeignRecord child = Begin(Pid, _ranges, Id, ++_forked);
        child.Forking = Forking;
        Forking?.Invoke(child, userfaultfd);
        Word(ChildrenAt)++;
        child.Fill(States, view);
        return child;
    }

    private static ForeignRecord Begin(int pid, GuestRegion[] ranges, Guid parent, int childNumber)
    {
        ulong bytes = BytesFor(ranges);
        if (bytes > int.MaxValue)
        {
            throw new ArgumentException($"The record of a process with {PagesOf(ranges)} pages would have {bytes} bytes, of 2 GiB that one has at most.", nameof(ranges));
        }

        var file = MemoryFile.Create("process-record", bytes);
        try
        {
            var buffer = new NativeBuffer(file);
            Span<byte> head = buffer.Span(0, Page.Size);
            BinaryPrimitives.WriteUInt64LittleEndian(head, Magic);
            BinaryPrimitives.WriteInt32LittleEndian(head[VersionAt..], Version);
            BinaryPrimitives.WriteInt32LittleEndian(head[PidAt..], pid);
            BinaryPrimitives.WriteUInt64LittleEndian(head[PageCountAt..], PagesOf(ranges));
            BinaryPrimitives.WriteInt32LittleEndian(head[RangesAt..], ranges.Length);
            BinaryPrimitives.WriteUInt32LittleEndian(head[RangeDigestAt..], DigestOf(MemoryMarshal.AsBytes(ranges.AsSpan())));
            _ = Guid.NewGuid().TryWriteBytes(head[IdAt..]);
            _ = parent.TryWriteBytes(head[ParentAt..]);
            BinaryPrimitives.WriteInt32LittleEndian(head[ChildNumberAt..], childNumber);
            BinaryPrimitives.WriteUInt32LittleEndian(head[HeadDigestAt..], DigestOf(head[..HeadDigestAt]));
            var record = new ForeignRecord(file, buffer, ranges);

            // So that the kernel finds the pages there that it writes messages to.
            Array.ForEach(record._events, static events => events.Clear(events.Capacity));
            return record;
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    private static ForeignRecord Checked(ForeignRecord record)
    {
        if (record.Word(IsOutgrownAt) != 0)
        {
            throw new InvalidDataException($"Process {record.Pid} has moved and unmapped its memory in more than {MostPieces} pieces, which is not followed. What it lacks can't be brought any more: end it.");
        }

        // A view that was not finished is not the current one. What was read before it is not to be applied again.
        record._events[1 - record.Current].Clear(Events);
        int slot = SlotAt(record.Current, record._ranges);
        int segments = record.Word(slot + SegmentsAt);
        (int before, int children) = (record.Word(slot + ChildrenBeforeAt), record.Word(ChildrenAt));
        if (before < 0 || children < before || children - before > Events)
        {
            throw Damaged($"it counts {children} children, {before} of them before what was read last");
        }

        if (!record.IsFilled)
        {
            return record;
        }

        if (segments < 0 || segments > record.MostSegments || (uint)record.Word(slot + ViewDigestAt) != DigestOf(record.SegmentBytes(record.Current)))
        {
            throw Damaged($"its view of {segments} pieces has another digest");
        }

        for (int i = 0; i < Events; i++)
        {
            UserfaultfdEvent left = record.Unapplied[i];
            if (!left.IsEmpty && !IsSane(left))
            {
                throw Damaged($"message {i} of the kernel is 0x{(int)left.Kind:x}, which makes no sense");
            }
        }

        return record;
    }

    /// <summary>Whether a message is one that is known here, of pages of a process.</summary>
    private static bool IsSane(UserfaultfdEvent left) => left.Kind switch
    {
        UserfaultfdEventKind.Fork => true,
        UserfaultfdEventKind.PageFault => IsRange(left.Address, Page.Size),
        UserfaultfdEventKind.Remove or UserfaultfdEventKind.Unmap => left.Start < left.End && IsRange(left.Start, left.End - left.Start),
        UserfaultfdEventKind.Remap => IsRange(left.RemapFrom, left.RemapLength) && IsRange(left.RemapTo, left.RemapLength),
        _ => false,
    };

    private static bool IsRange(ulong address, ulong length) =>
        (address | length) % Page.Size == 0 && address < ForeignView.UserSpaceEnd && length > 0 && length <= ForeignView.UserSpaceEnd - address;

    private static ulong PagesOf(GuestRegion[] ranges) => ranges.Aggregate(0UL, static (pages, range) => pages + (range.Length / Page.Size));

    private static int MostSegmentsOf(GuestRegion[] ranges) => (int)Math.Min(Math.Max(1, PagesOf(ranges)), (ulong)(ranges.Length + MostPieces));

    private static int SlotBytes(GuestRegion[] ranges) =>
        (EventsAt + (int)UserfaultfdEventBuffer.BytesFor(Events) + (MostSegmentsOf(ranges) * ForeignView.SegmentBytes) + Page.Size - 1) / Page.Size * Page.Size;

    private static int SlotAt(int slot, GuestRegion[] ranges) => Page.Size + (slot * SlotBytes(ranges));

    private static int StatesAt(GuestRegion[] ranges) => SlotAt(2, ranges);

    private static ulong BytesFor(GuestRegion[] ranges) => ((ulong)StatesAt(ranges) + PageStates.BytesFor(PagesOf(ranges)) + Page.Size - 1) / Page.Size * Page.Size;

    private static uint DigestOf(ReadOnlySpan<byte> bytes)
    {
        uint digest = uint.MaxValue;
        foreach (ulong word in MemoryMarshal.Cast<byte, ulong>(bytes))
        {
            digest = BitOperations.Crc32C(digest, word);
        }

        return digest;
    }

    private static InvalidDataException Damaged(string how) => new($"It is damaged: {how}.");

    private int SlotAt(int slot) => SlotAt(slot, _ranges);

    private UserfaultfdEventBuffer EventsOf(int slot) => new(_buffer.Region, (ulong)(SlotAt(slot) + EventsAt), Events);

    private Span<byte> SegmentBytes(int slot) =>
        _buffer.Span(SlotAt(slot) + EventsAt + (int)UserfaultfdEventBuffer.BytesFor(Events), Math.Clamp(Word(SlotAt(slot) + SegmentsAt), 0, MostSegments) * ForeignView.SegmentBytes);

    private void Write(int slot, ForeignView view)
    {
        if (view.Segments > MostSegments)
        {
            Word(IsOutgrownAt) = 1;
            return;
        }

        int at = SlotAt(slot);
        Word(at + ChildrenBeforeAt) = Word(ChildrenAt);
        Word(at + SegmentsAt) = view.Segments;
        Span<byte> segments = SegmentBytes(slot);
        view.Write(segments);
        Word(at + ViewDigestAt) = (int)DigestOf(segments);
    }

    private void Fill(PageStates parent, ForeignView view)
    {
        _ = States.CopyForked(parent);
        Write(0, view);
        Volatile.Write(ref Word(IsFilledAt), 1);
    }

    private ref int Word(int offset) => ref MemoryMarshal.AsRef<int>(_buffer.Span(offset, sizeof(int)));
}
