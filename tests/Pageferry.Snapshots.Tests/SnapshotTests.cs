using Pageferry.Memory;

namespace Pageferry.Snapshots.Tests;

public sealed class SnapshotTests : IDisposable
{
    private const ulong Pages = 600;

    private static readonly byte[] s_state = [1, 2, 3, 4, 5];

    private readonly TemporaryDirectory _directory = new();
    private readonly SnapshotHeader _header = new(
        SnapshotPart.SourceHalf, Guid.NewGuid(), "threads/x64/1", GuestBacking.Memfd, [new GuestRegion(0, 400 * Page.Size), new GuestRegion(1UL << 32, 200 * Page.Size)], 7, 3, IsPaused: true);

    private string D => _directory.Path("d.half");

    private string S => _directory.Path("s.half");

    private string Whole => _directory.Path("whole");

    public void Dispose() => _directory.Dispose();

    [Fact]
    public void A_page_is_the_destinations_if_it_has_it_and_else_the_sources()
    {
        using GuestMemory source = MemoryOf(page => page % 5 == 0 ? 0UL : page);
        using GuestMemory destination = MemoryOf(page => page % 7 == 0 ? 0UL : page + 1_000_000);
        using var states = new PageStates(Pages);
        for (ulong page = 0; page < Pages; page++)
        {
            // Every state in which a page is here, and both in which it is not.
            PageState[] some = [PageState.Absent, PageState.Present, PageState.Zero, PageState.Removed, PageState.Requested];
            _ = states.Change(page, PageState.Absent, some[page / 3 % 5]);
        }

        Write(D, SnapshotPart.DestinationHalf, destination, states);
        Write(S, SnapshotPart.SourceHalf, source, states: null, state: [9]);
        var merge = new SnapshotMerge();
        merge.Run(D, S, Whole);
        Assert.Equal(Pages, merge.FromDestination + merge.FromSource);
        using SnapshotReader reader = SnapshotReader.Open(Whole);
        Assert.Equal(_header with { Part = SnapshotPart.Whole, Regions = reader.Header.Regions }, reader.Header);
        Assert.Equal(_header.Regions, reader.Header.Regions);
        Assert.Equal(s_state, reader.State.ToArray());
        using GuestMemory read = GuestMemory.Create(_header.Regions);
        reader.ReadInto(read);
        for (ulong page = 0; page < Pages; page++)
        {
            bool isHere = states[page] is not (PageState.Absent or PageState.Requested);
            ulong expected = isHere ? (page % 7 == 0 ? 0 : page + 1_000_000) : page % 5 == 0 ? 0 : page;
            Assert.Equal(expected, WordOf(read, page));
        }
    }

    [Fact]
    public void What_neither_side_has_is_a_refusal_that_lists_the_ranges()
    {
        using GuestMemory memory = MemoryOf(page => page + 1);
        using var states = new PageStates(Pages);
        _ = states.Replace(0, 100, PageState.Absent, PageState.Present);
        Write(D, SnapshotPart.DestinationHalf, memory, states);
        _ = states.Replace(150, 100, PageState.Absent, PageState.Present);
        _ = states.Replace(300, 290, PageState.Absent, PageState.Zero);
        Write(S, SnapshotPart.SourceHalf, memory, states);
        SnapshotException refusal = Assert.Throws<SnapshotException>(() => new SnapshotMerge().Run(D, S, Whole));
        Assert.Contains("110 pages are in neither: 100 to 149, 250 to 299, 590 to 599.", refusal.Message, StringComparison.Ordinal);
        Assert.False(File.Exists(Whole));
        Assert.Equal(2, Directory.GetFiles(Path.GetDirectoryName(D)!).Length);
    }

    [Fact]
    public void Halves_of_different_guests_migrations_or_sides_are_refused_by_name()
    {
        using GuestMemory memory = MemoryOf(page => page);
        Write(D, SnapshotPart.DestinationHalf, memory, states: null);
        Refuse("different guests", _header with { Guest = Guid.NewGuid() });
        Refuse("different migrations of that guest", _header with { Session = 8 });
        Refuse("generation 3 at the destination, 4 at the source", _header with { Generation = 4 });
        Refuse("different machines", _header with { MachineKind = "kvm/x64/1" });
        Refuse("different memory layouts", _header with { Regions = [new GuestRegion(0, Pages * Page.Size)] });
        Refuse("it is a destination's half, and should be a source's half", _header with { Part = SnapshotPart.DestinationHalf });

        void Refuse(string why, SnapshotHeader header)
        {
            File.Delete(S);
            Write(S, header.Part, memory, states: null, header);
            SnapshotException refusal = Assert.Throws<SnapshotException>(() => new SnapshotMerge().Run(D, S, Whole));
            Assert.Contains(why, refusal.Message, StringComparison.Ordinal);
            Assert.False(File.Exists(Whole));
        }
    }

    [Fact]
    public void Any_byte_that_is_another_is_refused_with_where_it_is()
    {
        using GuestMemory memory = MemoryOf(page => page < 3 ? page + 1 : 0);
        Write(S, SnapshotPart.SourceHalf, memory, states: null);
        byte[] bytes = File.ReadAllBytes(S);
        Assert.True(bytes.Length < 4 * Page.Size, "Pages that are zero take room.");
        for (int i = 0; i < bytes.Length; i += i < 300 ? 1 : 97)
        {
            byte[] damaged = [.. bytes];
            damaged[i] ^= 0x10;
            SnapshotException refusal = Assert.Throws<SnapshotException>(() => ReadAll(damaged));
            Assert.Contains(i < 8 ? "it is none of the files" : "wrong at byte", refusal.Message, StringComparison.Ordinal);
            _ = Assert.Throws<SnapshotException>(() => ReadAll(bytes[..i]));
        }

        _ = Assert.Throws<SnapshotException>(() => ReadAll([.. bytes, 0]));
        ReadAll(bytes);
    }

    [Fact]
    public void A_file_is_whole_or_not_there_and_is_its_owners_alone()
    {
        using (SnapshotWriter writer = SnapshotWriter.Create(S, _header, s_state))
        {
            Assert.False(File.Exists(S));
        }

        Assert.Empty(Directory.GetFiles(Path.GetDirectoryName(S)!));
        using GuestMemory memory = MemoryOf(page => page);
        Write(S, SnapshotPart.SourceHalf, memory, states: null);
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(S));
        SnapshotException refusal = Assert.Throws<SnapshotException>(() => SnapshotWriter.Create(S, _header, s_state));
        Assert.Contains("it is there already", refusal.Message, StringComparison.Ordinal);
    }

    private static ulong WordOf(GuestMemory memory, ulong page)
    {
        Span<byte> word = stackalloc byte[sizeof(ulong)];
        memory.Read(memory.GpaOf(page) + 8, word);
        return BitConverter.ToUInt64(word);
    }

    private static void ReadAll(byte[] bytes)
    {
        using var reader = new SnapshotReader(new MemoryStream(bytes), "the test's file");
        while (reader.TryNext())
        {
            // To the end.
        }
    }

    private GuestMemory MemoryOf(Func<ulong, ulong> word)
    {
        GuestMemory memory = GuestMemory.Create(_header.Regions);
        for (ulong page = 0; page < Pages; page++)
        {
            if (word(page) != 0)
            {
                memory.Write(memory.GpaOf(page) + 8, BitConverter.GetBytes(word(page)));
            }
        }

        return memory;
    }

    private void Write(string path, SnapshotPart part, GuestMemory memory, PageStates? states, SnapshotHeader? header = null, byte[]? state = null)
    {
        using SnapshotWriter writer = SnapshotWriter.Create(path, (header ?? _header) with { Part = part }, state ?? s_state);
        writer.WriteMemory(memory, states);
        writer.Finish();
    }
}
