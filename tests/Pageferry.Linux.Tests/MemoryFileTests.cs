namespace Pageferry.Linux.Tests;

public class MemoryFileTests
{
    private static readonly ulong s_page = (ulong)Environment.SystemPageSize;

    [Fact]
    public void A_new_file_is_one_hole()
    {
        using var file = MemoryFile.Create("test of holes", 8 * s_page);
        Assert.Equal(8 * s_page, file.Length);
        Assert.Equal(file.Length, file.NextData(0));
        Assert.Equal(0UL, file.NextHole(0));
        Assert.Contains("test of holes", new FileInfo($"/proc/self/fd/{file.Descriptor.Number}").LinkTarget, StringComparison.Ordinal);
    }

    [Fact]
    public void Data_and_holes_are_found_and_punched()
    {
        using var file = MemoryFile.Create("test", 8 * s_page);
        using var memory = MappedRegion.MapShared(file.Descriptor, 0, file.Length);
        memory.CopyIn(2 * s_page, new byte[3 * s_page]);
        Assert.Equal(2 * s_page, file.NextData(0));
        Assert.Equal((3 * s_page) + 1, file.NextData((3 * s_page) + 1));
        Assert.Equal(5 * s_page, file.NextHole(2 * s_page));
        Assert.Equal(file.Length, file.NextData(5 * s_page));

        memory.CopyIn(3 * s_page, [7]);
        file.PunchHole(3 * s_page, s_page);
        Assert.Equal(3 * s_page, file.NextHole(2 * s_page));
        Assert.Equal(4 * s_page, file.NextData(3 * s_page));
        var value = new byte[1];
        memory.CopyOut(3 * s_page, value);
        Assert.Equal(0, value[0]);
    }

    [Fact]
    public void Nothing_is_at_or_beyond_the_end()
    {
        using var file = MemoryFile.Create("test", 2 * s_page);
        using var memory = MappedRegion.MapShared(file.Descriptor, 0, file.Length);
        memory.CopyIn(0, new byte[file.Length]);
        Assert.Equal(file.Length, file.NextHole(0));
        Assert.Equal(file.Length, file.NextData(file.Length));
        Assert.Equal(file.Length, file.NextHole(ulong.MaxValue));
    }

    [Fact]
    public void Mappings_share_the_content_at_their_offset()
    {
        using var file = MemoryFile.Create("test", 4 * s_page);
        using var all = MappedRegion.MapShared(file.Descriptor, 0, file.Length);
        using var part = MappedRegion.MapShared(file.Descriptor, 2 * s_page, s_page, MemoryProtection.Read);
        all.CopyIn((2 * s_page) + 3, [33]);
        Assert.Equal(33, part.Span(3, 1)[0]);
    }

    [Fact]
    public void Reading_sees_what_is_mapped_and_populates_nothing()
    {
        using var file = MemoryFile.Create("test", 4 * s_page);
        using var memory = MappedRegion.MapShared(file.Descriptor, 0, file.Length);
        memory.CopyIn((2 * s_page) + 3, [33]);
        byte[] read = new byte[file.Length];
        Array.Fill(read, (byte)9);
        file.Read(0, read);
        Assert.Equal((2 * (int)s_page) + 3, Array.FindIndex(read, static one => one != 0));
        Assert.Equal(33, read.Sum(static one => one));
        Assert.Equal(2 * s_page, file.NextData(0));
        Assert.Equal(3 * s_page, file.NextHole(2 * s_page));
        file.Read(file.Length, []);
    }

    [Fact]
    public void What_is_written_is_seen_where_it_is_mapped()
    {
        using var file = MemoryFile.Create("test", 4 * s_page);
        using var memory = MappedRegion.MapShared(file.Descriptor, 0, file.Length);
        file.Write((2 * s_page) + 3, [33]);
        Assert.Equal(33, memory.Span((2 * s_page) + 3, 1)[0]);
        Assert.Equal(2 * s_page, file.NextData(0));
        memory.CopyIn((2 * s_page) + 3, [34]);
        byte[] read = new byte[1];
        file.Read((2 * s_page) + 3, read);
        Assert.Equal(34, read[0]);
    }

    [Fact]
    public void Copies_beyond_the_end_are_refused_by_name_and_change_nothing()
    {
        using var file = MemoryFile.Create("short", 2 * s_page);
        byte[] pages = new byte[3 * s_page];
        Assert.Contains("memfd short ends", Assert.Throws<EndOfStreamException>(() => file.Read(0, pages)).Message, StringComparison.Ordinal);
        _ = Assert.Throws<ArgumentOutOfRangeException>(() => file.Write(0, pages));
        _ = Assert.Throws<ArgumentOutOfRangeException>(() => file.Write(ulong.MaxValue, pages));
        Assert.Equal(file.Length, file.NextData(0));
    }

    [Fact]
    public void Copies_that_the_kernel_refuses_are_named()
    {
        using FileStream opened = File.OpenRead(Environment.ProcessPath!);
        using var same = new FileDescriptor((int)opened.SafeFileHandle.DangerousGetHandle(), ownsHandle: false);
        using var file = MemoryFile.FromDescriptor(same.Duplicate(), "for reading");
        LinuxException failure = Assert.Throws<LinuxException>(() => file.Write(4, [1]));
        Assert.Equal(Errno.EBADF, failure.Errno);
        Assert.Contains("write 1 bytes at 4 of memfd for reading", failure.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_file_that_is_taken_over_knows_its_length()
    {
        using var file = MemoryFile.Create("test", 3 * s_page);
        using var same = MemoryFile.FromDescriptor(file.Descriptor.Duplicate(), "same");
        Assert.Equal(3 * s_page, same.Length);
        (UnixSocket first, UnixSocket second) = UnixSocket.CreatePair(UnixSocketType.Stream);
        using (first)
        using (second)
        {
            LinuxException failure = Assert.Throws<LinuxException>(() => MemoryFile.FromDescriptor(first.Descriptor, "no file"));
            Assert.Equal(Errno.ESPIPE, failure.Errno);
            Assert.Contains("memfd no file", failure.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void A_range_that_makes_no_sense_is_refused_by_name()
    {
        using var file = MemoryFile.Create("test", s_page);
        LinuxException failure = Assert.Throws<LinuxException>(() => file.PunchHole(0, 0));
        Assert.Equal(Errno.EINVAL, failure.Errno);
        Assert.Contains("punch a hole of 0 bytes at 0 into memfd test", failure.Message, StringComparison.Ordinal);
        Assert.Equal(Errno.EINVAL, Assert.Throws<LinuxException>(() => MappedRegion.MapShared(file.Descriptor, 1, s_page)).Errno);
        Assert.Equal(Errno.EINVAL, Assert.Throws<LinuxException>(() => MemoryFile.Create(new string('x', 300), s_page)).Errno);
    }

    [Fact]
    public void One_opening_at_a_time_is_locked_and_the_lock_goes_where_it_is_sent()
    {
        using var file = MemoryFile.Create("test", s_page);
        (UnixSocket mine, UnixSocket other) = UnixSocket.CreatePair(UnixSocketType.SequencedPackets);
        using (mine)
        using (other)
        {
            using (FileDescriptor locked = file.TryOpenLocked()!)
            {
                Assert.Null(file.TryOpenLocked());
                mine.Send("x"u8, locked);
            }

            Assert.Null(file.TryOpenLocked());
            var received = new FileDescriptor?[1];
            Assert.Equal(1, other.Receive(new byte[1], received, out _));
            Assert.Null(file.TryOpenLocked());
            received[0]!.Dispose();
        }

        using FileDescriptor? again = file.TryOpenLocked();
        Assert.NotNull(again);
    }

    [Fact]
    public void A_fixed_file_keeps_its_length()
    {
        using var file = MemoryFile.CreateFixed("test", 100);
        Assert.True(file.IsFixed);
        Assert.NotEqual(0, Interop.Ftruncate(file.Descriptor.Number, 99));
        Assert.NotEqual(0, Interop.Ftruncate(file.Descriptor.Number, 101));
        using var taken = MemoryFile.FromDescriptor(file.Descriptor.Duplicate(), "taken");
        Assert.True(taken.IsFixed);
        Assert.Equal(100UL, taken.Length);
        using var changing = MemoryFile.Create("test", 100);
        Assert.False(changing.IsFixed);
    }
}
