using static Pageferry.Linux.Tests.FaultListener;

namespace Pageferry.Linux.Tests;

/// <summary>Memory of 2 MiB pages, which are reserved for these tests.</summary>
public sealed class HugePageTests(HugePagePool pool) : IClassFixture<HugePagePool>
{
    private const ulong HugePage = HugePagePool.PageSize;

    private const UserfaultfdFeatures Features = UserfaultfdFeatures.MissingHugetlbfs | UserfaultfdFeatures.MinorHugetlbfs
        | UserfaultfdFeatures.WriteProtectHugetlbfsShmem | UserfaultfdFeatures.PageFaultFlagWriteProtect;

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_missing_huge_page_is_told_and_copied_whole(bool isShared)
    {
        SkipWithoutPages();
        using var file = MemoryFile.Create("test", 2 * HugePage, hugePages: true);
        using MappedRegion memory = isShared
            ? MappedRegion.MapShared(file.Descriptor, 0, file.Length)
            : MappedRegion.MapAnonymous(2 * HugePage, hugePages: true);
        using var source = MappedRegion.MapAnonymous(HugePage);
        source.CopyIn(5 * PageSize, [5]);
        using var listener = new FaultListener(Features);
        Userfaultfd userfaultfd = listener.Userfaultfd;
        userfaultfd.Register(memory.Address, memory.Length, UserfaultfdModes.Missing);
        Waiter<byte> reader = Read(memory, HugePage + (5 * PageSize));

        // The kernel rounds down to the huge page.
        listener.NextFault(memory.Address + HugePage);
        Assert.Equal(UserfaultfdResult.Invalid, userfaultfd.Copy(memory.Address + HugePage, source.Address, PageSize, UserfaultfdCopyFlags.None, out _));
        Assert.Equal(UserfaultfdResult.Done, userfaultfd.Copy(memory.Address + HugePage, source.Address, HugePage, UserfaultfdCopyFlags.None, out long done));
        Assert.Equal((long)HugePage, done);
        Assert.Equal(5, reader.Finish());
        Assert.Equal(UserfaultfdResult.AlreadyPresent, userfaultfd.Copy(memory.Address + HugePage, source.Address, HugePage, UserfaultfdCopyFlags.None, out done));
        Assert.Equal(-(long)Errno.EEXIST, done);
        Assert.Equal(UserfaultfdResult.Invalid, userfaultfd.ZeroPage(memory.Address, HugePage, UserfaultfdCopyFlags.None, out done));
        Assert.Equal(-(long)Errno.EINVAL, done);
    }

    [Fact]
    public void A_huge_page_in_the_cache_is_a_minor_fault_and_continued()
    {
        SkipWithoutPages();
        using var file = MemoryFile.Create("test", 2 * HugePage, hugePages: true);
        using var host = MappedRegion.MapShared(file.Descriptor, 0, file.Length);
        using var memory = MappedRegion.MapShared(file.Descriptor, 0, file.Length);
        using var listener = new FaultListener(Features);
        listener.Userfaultfd.Register(memory.Address, memory.Length, UserfaultfdModes.Missing | UserfaultfdModes.Minor);
        host.CopyIn(HugePage + 7, [7]);
        Waiter<byte> reader = Read(memory, HugePage + 7);
        Assert.True(listener.NextFault(memory.Address + HugePage).IsMinor);
        Assert.Equal(UserfaultfdResult.Done, listener.Userfaultfd.Continue(memory.Address + HugePage, HugePage, UserfaultfdCopyFlags.None, out long done));
        Assert.Equal((long)HugePage, done);
        Assert.Equal(7, reader.Finish());
        Assert.Equal(UserfaultfdResult.BadSource, listener.Userfaultfd.Continue(memory.Address, HugePage, UserfaultfdCopyFlags.None, out _));

        file.PunchHole(HugePage, HugePage);
        reader = Read(memory, HugePage + 7);
        Assert.False(listener.NextFault(memory.Address + HugePage).IsMinor);
        listener.Userfaultfd.Unregister(memory.Address, memory.Length);
        Assert.Equal(0, reader.Finish());
    }

    [Fact]
    public void A_file_of_huge_pages_does_not_tell_its_holes()
    {
        SkipWithoutPages();
        using var file = MemoryFile.Create("test", 2 * HugePage, hugePages: true);
        Assert.Equal(0UL, file.NextData(0));
        Assert.Equal(file.Length, file.NextHole(0));
    }

    [Fact]
    public void A_write_to_a_protected_huge_page_waits()
    {
        SkipWithoutPages();
        using var memory = MappedRegion.MapAnonymous(HugePage, hugePages: true);
        using var listener = new FaultListener(Features);
        memory.CopyIn(0, [1]);
        listener.Userfaultfd.Register(memory.Address, memory.Length, UserfaultfdModes.WriteProtect);
        Assert.Equal(UserfaultfdResult.Done, listener.Userfaultfd.WriteProtect(memory.Address, HugePage, UserfaultfdWriteProtectFlags.Protect));
        Waiter<byte> writer = Write(memory, 3 * PageSize, 3);
        Assert.True(listener.NextFault(memory.Address).IsWriteProtect);
        Assert.Equal(UserfaultfdResult.Done, listener.Userfaultfd.WriteProtect(memory.Address, HugePage, UserfaultfdWriteProtectFlags.None));
        Assert.Equal(3, writer.Finish());
        Assert.Equal(1, Read(memory, 0).Finish());
    }

    [Fact]
    public void More_huge_pages_than_there_are_can_not_be_mapped()
    {
        // Mapped without a reservation, the first page too many would end the process with SIGBUS.
        SkipWithoutPages();
        ulong tooMuch = ((ulong)HugePagePool.Free + 1) * HugePage;
        LinuxException failure = Assert.Throws<LinuxException>(() => MappedRegion.MapAnonymous(tooMuch, hugePages: true));
        Assert.Equal(Errno.ENOMEM, failure.Errno);
        Assert.Contains("nr_hugepages", failure.Message, StringComparison.Ordinal);
        using var file = MemoryFile.Create("test", tooMuch, hugePages: true);
        failure = Assert.Throws<LinuxException>(() => MappedRegion.MapShared(file.Descriptor, 0, tooMuch));
        Assert.Equal(Errno.ENOMEM, failure.Errno);
    }

    [Fact]
    public void Two_mappings_of_a_file_reserve_its_huge_pages_once()
    {
        SkipWithoutPages();
        ulong all = (ulong)HugePagePool.Free * HugePage;
        using var file = MemoryFile.Create("test", all, hugePages: true);
        using var first = MappedRegion.MapShared(file.Descriptor, 0, all);
        using var second = MappedRegion.MapShared(file.Descriptor, 0, all);
        first.CopyIn(all - 1, [9]);
        Assert.Equal(9, Read(second, all - 1).Finish());
    }

    private void SkipWithoutPages() => Assert.SkipUnless(pool.IsReserved, "2 MiB pages could not be reserved in /sys/kernel/mm/hugepages.");
}
