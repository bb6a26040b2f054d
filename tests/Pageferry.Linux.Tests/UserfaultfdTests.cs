using System.Runtime.InteropServices;
using static Pageferry.Linux.Tests.FaultListener;

namespace Pageferry.Linux.Tests;

/// <summary>A userfaultfd of this process's memory.</summary>
public class UserfaultfdTests
{
    private static readonly byte[] s_content = [.. Enumerable.Range(0, 8 * Environment.SystemPageSize).Select(i => (byte)((i / Environment.SystemPageSize) + 1))];

    [Fact]
    public void A_missing_page_is_told_and_copied()
    {
        using MappedRegion memory = MappedRegion.MapAnonymous(4 * PageSize);
        using MappedRegion source = Source();
        using var listener = new FaultListener(UserfaultfdFeatures.ThreadId);
        Register(listener, memory, UserfaultfdModes.Missing);
        Waiter<byte> reader = Read(memory, PageSize + 17);
        FaultMessage fault = listener.NextFault(memory.Address + PageSize);
        Assert.False(fault.IsWrite || fault.IsMinor || fault.IsWriteProtect);
        Assert.True(Directory.Exists($"/proc/self/task/{fault.ThreadId}"));
        AssertDone(PageSize, Copy(listener, memory, 1, 1, source, out long done), done);
        Assert.Equal(1, reader.Finish());

        Waiter<byte> writer = Write(memory, 2 * PageSize, 99);
        Assert.True(listener.NextFault(memory.Address + (2 * PageSize)).IsWrite);
        AssertDone(PageSize, listener.Userfaultfd.ZeroPage(memory.Address + (2 * PageSize), PageSize, UserfaultfdCopyFlags.None, out done), done);
        writer.Finish();
        Assert.Equal(99, Read(memory, 2 * PageSize).Finish());
        Assert.Equal(0, Read(memory, (2 * PageSize) + 1).Finish());
        listener.AssertQuiet();
    }

    [Fact]
    public void The_exact_address_is_told_where_it_is_asked_for()
    {
        using MappedRegion memory = MappedRegion.MapAnonymous(PageSize);
        using var listener = new FaultListener(UserfaultfdFeatures.ExactAddress);
        Register(listener, memory, UserfaultfdModes.Missing);
        Waiter<byte> reader = Read(memory, 17);
        listener.NextFault(memory.Address + 17);
        listener.Userfaultfd.ZeroPage(memory.Address, PageSize, UserfaultfdCopyFlags.None, out _);
        Assert.Equal(0, reader.Finish());
    }

    [Fact]
    public void A_page_that_is_there_is_not_placed_again_and_wakes_nobody()
    {
        using MappedRegion memory = MappedRegion.MapAnonymous(PageSize);
        using MappedRegion source = Source();
        using var listener = new FaultListener();
        Register(listener, memory, UserfaultfdModes.Missing);
        Waiter<byte> reader = Read(memory, 0);
        listener.NextFault(memory.Address);
        AssertDone(PageSize, listener.Userfaultfd.Copy(memory.Address, source.Address, PageSize, UserfaultfdCopyFlags.DontWake, out long done), done);
        AssertFailed(UserfaultfdResult.AlreadyPresent, Errno.EEXIST, Copy(listener, memory, 0, 1, source, out done), done);
        AssertFailed(UserfaultfdResult.AlreadyPresent, Errno.EEXIST, listener.Userfaultfd.ZeroPage(memory.Address, PageSize, UserfaultfdCopyFlags.None, out done), done);
        AssertFailed(UserfaultfdResult.AlreadyPresent, Errno.EEXIST, listener.Userfaultfd.Poison(memory.Address, PageSize, UserfaultfdCopyFlags.None, out done), done);
        reader.AssertWaits();
        listener.Userfaultfd.Wake(memory.Address, PageSize);
        Assert.Equal(1, reader.Finish());
    }

    [Fact]
    public void A_copy_says_how_far_it_came()
    {
        using MappedRegion memory = MappedRegion.MapAnonymous(8 * PageSize);
        using MappedRegion source = Source();
        using var listener = new FaultListener();
        Register(listener, memory, UserfaultfdModes.Missing);
        AssertDone(PageSize, Copy(listener, memory, 2, 1, source, out long done), done);
        Assert.Equal(UserfaultfdResult.Retry, Copy(listener, memory, 0, 4, source, out done));
        Assert.Equal(2 * (long)PageSize, done);

        // The source's last page is followed by nothing that can be read.
        source.Protect(7 * PageSize, PageSize, MemoryProtection.None);
        Assert.Equal(
            UserfaultfdResult.Retry,
            listener.Userfaultfd.Copy(memory.Address + (4 * PageSize), source.Address + (6 * PageSize), 2 * PageSize, UserfaultfdCopyFlags.None, out done));
        Assert.Equal((long)PageSize, done);
        AssertFailed(
            UserfaultfdResult.BadSource,
            Errno.EFAULT,
            listener.Userfaultfd.Copy(memory.Address + (5 * PageSize), source.Address + (7 * PageSize), PageSize, UserfaultfdCopyFlags.None, out done),
            done);
    }

    [Fact]
    public void A_copy_from_an_unaligned_source_is_fine()
    {
        using MappedRegion memory = MappedRegion.MapAnonymous(PageSize);
        using MappedRegion source = Source();
        using var listener = new FaultListener();
        Register(listener, memory, UserfaultfdModes.Missing);
        AssertDone(PageSize, listener.Userfaultfd.Copy(memory.Address, source.Address + PageSize - 1, PageSize, UserfaultfdCopyFlags.None, out long done), done);
        Assert.Equal(1, Read(memory, 0).Finish());
        Assert.Equal(2, Read(memory, 1).Finish());
    }

    [Fact]
    public void Requests_that_make_no_sense_are_results()
    {
        using MappedRegion memory = MappedRegion.MapAnonymous(2 * PageSize);
        using MappedRegion stranger = MappedRegion.MapAnonymous(PageSize);
        using MappedRegion source = Source();
        using var listener = new FaultListener();
        Userfaultfd userfaultfd = listener.Userfaultfd;
        Register(listener, memory, UserfaultfdModes.Missing);
        AssertFailed(UserfaultfdResult.NotRegistered, Errno.ENOENT, Copy(listener, stranger, 0, 1, source, out long done), done);
        AssertFailed(UserfaultfdResult.NotRegistered, Errno.ENOENT, userfaultfd.ZeroPage(stranger.Address, PageSize, UserfaultfdCopyFlags.None, out done), done);
        AssertFailed(UserfaultfdResult.NotRegistered, Errno.ENOENT, userfaultfd.Poison(stranger.Address, PageSize, UserfaultfdCopyFlags.None, out done), done);
        AssertFailed(UserfaultfdResult.NotRegistered, Errno.ENOENT, Copy(listener, memory, 0, 3, source, out done), done);
        Assert.Equal(UserfaultfdResult.NotRegistered, userfaultfd.WriteProtect(memory.Address, PageSize, UserfaultfdWriteProtectFlags.Protect));
        Assert.Equal(UserfaultfdResult.Invalid, userfaultfd.Copy(memory.Address + 1, source.Address, PageSize, UserfaultfdCopyFlags.None, out _));
        Assert.Equal(UserfaultfdResult.Invalid, userfaultfd.Copy(memory.Address, source.Address, 0, UserfaultfdCopyFlags.None, out _));
        Assert.Equal(UserfaultfdResult.Invalid, userfaultfd.Copy(memory.Address, source.Address, PageSize, (UserfaultfdCopyFlags)64, out _));
        Assert.Equal(UserfaultfdResult.Invalid, userfaultfd.ZeroPage(memory.Address, PageSize, UserfaultfdCopyFlags.WriteProtect, out _));
        AssertFailed(UserfaultfdResult.Invalid, Errno.EINVAL, userfaultfd.Copy(memory.Address, source.Address, PageSize, UserfaultfdCopyFlags.WriteProtect, out done), done);
        AssertFailed(UserfaultfdResult.Invalid, Errno.EINVAL, userfaultfd.Continue(memory.Address, PageSize, UserfaultfdCopyFlags.None, out done), done);
        Assert.Throws<LinuxException>(() => userfaultfd.Wake(memory.Address, 0));
        listener.AssertQuiet();
    }

    [Fact]
    public void Registrations_that_make_no_sense_are_refused_by_name()
    {
        using MappedRegion memory = MappedRegion.MapAnonymous(2 * PageSize);
        using var listener = new FaultListener(UserfaultfdFeatures.MinorShmem);
        using var other = new FaultListener();
        Assert.Equal(Errno.EINVAL, Assert.Throws<LinuxException>(() => Register(listener, memory, UserfaultfdModes.None)).Errno);
        Assert.Equal(Errno.EINVAL, Assert.Throws<LinuxException>(() => Register(listener, memory, UserfaultfdModes.Minor)).Errno);
        Assert.Equal(Errno.EINVAL, Assert.Throws<LinuxException>(() => listener.Userfaultfd.Register(memory.Address + 1, PageSize, UserfaultfdModes.Missing)).Errno);
        Register(listener, memory, UserfaultfdModes.Missing);
        LinuxException taken = Assert.Throws<LinuxException>(() => Register(other, memory, UserfaultfdModes.Missing));
        Assert.Equal(Errno.EBUSY, taken.Errno);
        Assert.Contains($"register {memory.Length} bytes at 0x{memory.Address:x}", taken.Message, StringComparison.Ordinal);
        listener.Userfaultfd.Unregister(memory.Address, memory.Length);
        Register(other, memory, UserfaultfdModes.Missing);
    }

    [Fact]
    public void A_registration_says_which_requests_work()
    {
        using MappedRegion anonymous = MappedRegion.MapAnonymous(PageSize);
        using MemoryFile file = MemoryFile.Create("test", PageSize);
        using MappedRegion shared = MappedRegion.MapShared(file.Descriptor, 0, PageSize);
        using var listener = new FaultListener(UserfaultfdFeatures.MissingShmem | UserfaultfdFeatures.MinorShmem | UserfaultfdFeatures.WriteProtectHugetlbfsShmem);
        Assert.Equal(0x13cUL, Register(listener, anonymous, UserfaultfdModes.Missing));
        Assert.Equal(0x17cUL, Register(listener, anonymous, UserfaultfdModes.Missing | UserfaultfdModes.WriteProtect));
        Assert.Equal(0x1bcUL, Register(listener, shared, UserfaultfdModes.Missing | UserfaultfdModes.Minor));
        Assert.Equal(0x1fcUL, Register(listener, shared, UserfaultfdModes.Missing | UserfaultfdModes.Minor | UserfaultfdModes.WriteProtect));
    }

    [Fact]
    public void One_copy_wakes_every_waiter_of_its_page()
    {
        using MappedRegion memory = MappedRegion.MapAnonymous(PageSize);
        using MappedRegion source = Source();
        using var listener = new FaultListener();
        Register(listener, memory, UserfaultfdModes.Missing);
        Waiter<byte>[] readers = [Read(memory, 0), Read(memory, 1), Read(memory, 2)];
        foreach (Waiter<byte> unused in readers)
        {
            listener.NextFault(memory.Address);
        }

        AssertDone(PageSize, Copy(listener, memory, 0, 1, source, out long done), done);
        Assert.All(readers, reader => Assert.Equal(1, reader.Finish()));
    }

    [Fact]
    public void Who_is_woken_without_a_page_faults_again()
    {
        using MappedRegion memory = MappedRegion.MapAnonymous(PageSize);
        using var listener = new FaultListener();
        Register(listener, memory, UserfaultfdModes.Missing);
        Waiter<byte> reader = Read(memory, 0);
        listener.NextFault(memory.Address);
        listener.AssertQuiet();
        listener.Userfaultfd.Wake(memory.Address, PageSize);
        listener.NextFault(memory.Address);
        listener.Userfaultfd.Unregister(memory.Address, PageSize);
        Assert.Equal(0, reader.Finish());
    }

    [Fact]
    public void Closing_lets_the_waiters_go_on_with_zeros()
    {
        using MappedRegion memory = MappedRegion.MapAnonymous(PageSize);
        using var listener = new FaultListener();
        Register(listener, memory, UserfaultfdModes.Missing);
        Waiter<byte> reader = Read(memory, 0);
        listener.NextFault(memory.Address);
        listener.Userfaultfd.Dispose();
        Assert.Equal(0, reader.Finish());
    }

    [Fact]
    public void A_page_in_the_cache_is_a_minor_fault_and_continued()
    {
        using MemoryFile file = MemoryFile.Create("test", 8 * PageSize);
        using MappedRegion host = MappedRegion.MapShared(file.Descriptor, 0, file.Length);
        using MappedRegion memory = MappedRegion.MapShared(file.Descriptor, 0, file.Length);
        using var listener = new FaultListener(UserfaultfdFeatures.MissingShmem | UserfaultfdFeatures.MinorShmem);
        Userfaultfd userfaultfd = listener.Userfaultfd;
        Register(listener, memory, UserfaultfdModes.Missing | UserfaultfdModes.Minor);
        host.CopyIn(0, [42]);
        Waiter<byte> reader = Read(memory, 0);
        Assert.True(listener.NextFault(memory.Address).IsMinor);
        AssertDone(PageSize, userfaultfd.Continue(memory.Address, PageSize, UserfaultfdCopyFlags.None, out long done), done);
        Assert.Equal(42, reader.Finish());
        AssertFailed(UserfaultfdResult.AlreadyPresent, Errno.EEXIST, userfaultfd.Continue(memory.Address, PageSize, UserfaultfdCopyFlags.None, out done), done);

        // Unmapped but still in the cache: minor again, and the content is kept.
        memory.Advise(0, PageSize, MemoryAdvice.DontNeed);
        reader = Read(memory, 0);
        Assert.True(listener.NextFault(memory.Address).IsMinor);
        userfaultfd.Continue(memory.Address, PageSize, UserfaultfdCopyFlags.None, out _);
        Assert.Equal(42, reader.Finish());

        // A hole is missing, and can't be continued.
        reader = Read(memory, PageSize);
        Assert.False(listener.NextFault(memory.Address + PageSize).IsMinor);
        AssertFailed(UserfaultfdResult.BadSource, Errno.EFAULT, userfaultfd.Continue(memory.Address + PageSize, PageSize, UserfaultfdCopyFlags.None, out done), done);
        host.CopyIn(PageSize, [43]);
        AssertDone(PageSize, userfaultfd.Continue(memory.Address + PageSize, PageSize, UserfaultfdCopyFlags.None, out done), done);
        Assert.Equal(43, reader.Finish());

        // Three of five pages are in the cache.
        host.CopyIn(2 * PageSize, new byte[3 * PageSize]);
        Assert.Equal(UserfaultfdResult.Retry, userfaultfd.Continue(memory.Address + (2 * PageSize), 5 * PageSize, UserfaultfdCopyFlags.None, out done));
        Assert.Equal(3 * (long)PageSize, done);
    }

    [Fact]
    public void A_punched_hole_is_missing_again()
    {
        using MemoryFile file = MemoryFile.Create("test", 2 * PageSize);
        using MappedRegion memory = MappedRegion.MapShared(file.Descriptor, 0, file.Length);
        using MappedRegion source = Source();
        using var listener = new FaultListener(UserfaultfdFeatures.MissingShmem | UserfaultfdFeatures.MinorShmem);
        Register(listener, memory, UserfaultfdModes.Missing | UserfaultfdModes.Minor);
        AssertDone(2 * PageSize, Copy(listener, memory, 0, 2, source, out long done), done);
        file.PunchHole(PageSize, PageSize);
        Waiter<byte> reader = Read(memory, PageSize);
        Assert.False(listener.NextFault(memory.Address + PageSize).IsMinor);
        AssertDone(PageSize, listener.Userfaultfd.Copy(memory.Address + PageSize, source.Address + (5 * PageSize), PageSize, UserfaultfdCopyFlags.None, out done), done);
        Assert.Equal(6, reader.Finish());
        Assert.Equal(1, Read(memory, 0).Finish());
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_write_to_a_protected_page_waits_until_it_may_pass(bool isShared)
    {
        using MemoryFile file = MemoryFile.Create("test", 2 * PageSize);
        using MappedRegion memory = isShared ? MappedRegion.MapShared(file.Descriptor, 0, file.Length) : MappedRegion.MapAnonymous(2 * PageSize);
        using MappedRegion source = Source();
        using var listener = new FaultListener(
            UserfaultfdFeatures.PageFaultFlagWriteProtect | UserfaultfdFeatures.MissingShmem | UserfaultfdFeatures.WriteProtectHugetlbfsShmem);
        Userfaultfd userfaultfd = listener.Userfaultfd;
        Register(listener, memory, UserfaultfdModes.Missing | UserfaultfdModes.WriteProtect);
        AssertDone(PageSize, userfaultfd.Copy(memory.Address, source.Address, PageSize, UserfaultfdCopyFlags.WriteProtect, out long done), done);
        Assert.Equal(1, Read(memory, 0).Finish());
        Waiter<byte> writer = Write(memory, 0, 77);
        FaultMessage fault = listener.NextFault(memory.Address);
        Assert.True(fault.IsWrite && fault.IsWriteProtect);
        Assert.Equal(UserfaultfdResult.Done, userfaultfd.WriteProtect(memory.Address, PageSize, UserfaultfdWriteProtectFlags.None));
        writer.Finish();
        Assert.Equal(77, Read(memory, 0).Finish());

        Assert.Equal(UserfaultfdResult.Done, userfaultfd.WriteProtect(memory.Address, PageSize, UserfaultfdWriteProtectFlags.Protect));
        writer = Write(memory, 0, 78);
        listener.NextFault(memory.Address);
        Assert.Equal(UserfaultfdResult.Done, userfaultfd.WriteProtect(memory.Address, PageSize, UserfaultfdWriteProtectFlags.DontWake));
        writer.AssertWaits();
        userfaultfd.Wake(memory.Address, PageSize);
        writer.Finish();
        Assert.Equal(78, Read(memory, 0).Finish());
        Assert.Equal(
            UserfaultfdResult.Invalid,
            userfaultfd.WriteProtect(memory.Address, PageSize, UserfaultfdWriteProtectFlags.Protect | UserfaultfdWriteProtectFlags.DontWake));
    }

    [Fact]
    public void Pages_that_were_written_are_found_without_a_message()
    {
        using MappedRegion memory = MappedRegion.MapAnonymous(8 * PageSize);
        using PageMap map = PageMap.Open(Environment.ProcessId);
        using var listener = new FaultListener(UserfaultfdFeatures.WriteProtectAsync | UserfaultfdFeatures.WriteProtectUnpopulated);
        memory.Advise(0, memory.Length, MemoryAdvice.PopulateWrite);
        Register(listener, memory, UserfaultfdModes.WriteProtect);
        Assert.Equal(UserfaultfdResult.Done, listener.Userfaultfd.WriteProtect(memory.Address, memory.Length, UserfaultfdWriteProtectFlags.Protect));
        memory.CopyIn(1 * PageSize, [1]);
        memory.CopyIn(2 * PageSize, [1]);
        memory.CopyIn(6 * PageSize, [1]);
        var ranges = new PageRange[8];
        int count = map.Scan(memory.Address, memory.Address + memory.Length, new PageFilter { All = PageCategories.Written }, PageCategories.Written, ranges, out _);
        Assert.Equal(
            [
                new PageRange(memory.Address + (1 * PageSize), memory.Address + (3 * PageSize), PageCategories.Written),
                new PageRange(memory.Address + (6 * PageSize), memory.Address + (7 * PageSize), PageCategories.Written),
            ],
            ranges[..count]);
        listener.AssertQuiet();
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_poisoned_page_is_an_error_until_it_is_copied(bool isShared)
    {
        using MemoryFile file = MemoryFile.Create("test", 4 * PageSize);
        using MappedRegion memory = isShared ? MappedRegion.MapShared(file.Descriptor, 0, file.Length) : MappedRegion.MapAnonymous(4 * PageSize);
        using MappedRegion source = Source();
        using var listener = new FaultListener(UserfaultfdFeatures.Poison | UserfaultfdFeatures.MissingShmem);
        Userfaultfd userfaultfd = listener.Userfaultfd;
        Register(listener, memory, UserfaultfdModes.Missing);
        AssertDone(2 * PageSize, userfaultfd.Poison(memory.Address, 2 * PageSize, UserfaultfdCopyFlags.None, out long done), done);
        Assert.Equal(Errno.EFAULT, KernelAccess(memory.Address));
        AssertFailed(UserfaultfdResult.AlreadyPresent, Errno.EEXIST, userfaultfd.Poison(memory.Address, PageSize, UserfaultfdCopyFlags.None, out done), done);
        Assert.Equal(UserfaultfdResult.Invalid, userfaultfd.Poison(memory.Address, PageSize, UserfaultfdCopyFlags.WriteProtect, out _));
        AssertDone(PageSize, Copy(listener, memory, 0, 1, source, out done), done);
        Assert.Equal(1, Read(memory, 0).Finish());

        // Nothing there again, so it faults again.
        memory.Advise(PageSize, PageSize, MemoryAdvice.DontNeed);
        Waiter<byte> reader = Read(memory, PageSize);
        listener.NextFault(memory.Address + PageSize);
        userfaultfd.ZeroPage(memory.Address + PageSize, PageSize, UserfaultfdCopyFlags.None, out _);
        Assert.Equal(0, reader.Finish());
    }

    [Fact]
    public void Pages_are_moved_and_leave_holes()
    {
        using MappedRegion memory = MappedRegion.MapAnonymous(4 * PageSize);
        using MappedRegion source = MappedRegion.MapAnonymous(4 * PageSize);
        using PageMap map = PageMap.Open(Environment.ProcessId);
        using var listener = new FaultListener(UserfaultfdFeatures.Move);
        Userfaultfd userfaultfd = listener.Userfaultfd;
        Register(listener, memory, UserfaultfdModes.Missing);
        source.Advise(0, source.Length, MemoryAdvice.NoHugePage);
        source.CopyIn(0, s_content.AsSpan(0, 2 * (int)PageSize));
        Waiter<byte> reader = Read(memory, 0);
        listener.NextFault(memory.Address);
        AssertDone(PageSize, userfaultfd.Move(memory.Address, source.Address, PageSize, UserfaultfdMoveFlags.None, out long done), done);
        Assert.Equal(1, reader.Finish());
        var ranges = new PageRange[4];
        Assert.Equal(1, map.Scan(source.Address, source.Address + source.Length, new PageFilter { All = PageCategories.Present }, PageCategories.Present, ranges, out _));
        Assert.Equal(new PageRange(source.Address + PageSize, source.Address + (2 * PageSize), PageCategories.Present), ranges[0]);

        AssertFailed(UserfaultfdResult.AlreadyPresent, Errno.EEXIST, userfaultfd.Move(memory.Address, source.Address + PageSize, PageSize, UserfaultfdMoveFlags.None, out done), done);
        AssertFailed(UserfaultfdResult.NotRegistered, Errno.ENOENT, userfaultfd.Move(memory.Address + PageSize, source.Address, PageSize, UserfaultfdMoveFlags.None, out done), done);
        AssertDone(
            3 * PageSize,
            userfaultfd.Move(memory.Address + PageSize, source.Address, 3 * PageSize, UserfaultfdMoveFlags.AllowSourceHoles | UserfaultfdMoveFlags.DontWake, out done),
            done);
        Assert.Equal(2, Read(memory, 2 * PageSize).Finish());
        Assert.Equal(UserfaultfdResult.Invalid, userfaultfd.Move(memory.Address + 1, source.Address, PageSize, UserfaultfdMoveFlags.None, out _));
        listener.AssertQuiet();
    }

    [Fact]
    public void Nothing_is_placed_while_a_removal_is_unread()
    {
        using MappedRegion memory = MappedRegion.MapAnonymous(4 * PageSize);
        using MappedRegion source = Source();
        using var listener = new FaultListener(
            UserfaultfdFeatures.EventRemove | UserfaultfdFeatures.Poison | UserfaultfdFeatures.Move | UserfaultfdFeatures.PageFaultFlagWriteProtect);
        Userfaultfd userfaultfd = listener.Userfaultfd;
        Register(listener, memory, UserfaultfdModes.Missing | UserfaultfdModes.WriteProtect);
        AssertDone(PageSize, Copy(listener, memory, 3, 1, source, out long done), done);
        Waiter<bool> remover = new(() =>
        {
            memory.Advise(3 * PageSize, PageSize, MemoryAdvice.DontNeed);
            return true;
        });
        listener.WaitForMessage();
        AssertFailed(UserfaultfdResult.Retry, Errno.EAGAIN, Copy(listener, memory, 0, 1, source, out done), done);
        AssertFailed(UserfaultfdResult.Retry, Errno.EAGAIN, userfaultfd.ZeroPage(memory.Address, PageSize, UserfaultfdCopyFlags.None, out done), done);
        AssertFailed(UserfaultfdResult.Retry, Errno.EAGAIN, userfaultfd.Continue(memory.Address, PageSize, UserfaultfdCopyFlags.None, out done), done);
        AssertFailed(UserfaultfdResult.Retry, Errno.EAGAIN, userfaultfd.Poison(memory.Address, PageSize, UserfaultfdCopyFlags.None, out done), done);
        AssertFailed(UserfaultfdResult.Retry, Errno.EAGAIN, userfaultfd.Move(memory.Address, source.Address, PageSize, UserfaultfdMoveFlags.None, out done), done);
        Assert.Equal(UserfaultfdResult.Retry, userfaultfd.WriteProtect(memory.Address, PageSize, UserfaultfdWriteProtectFlags.Protect));
        userfaultfd.Wake(memory.Address, PageSize);

        FaultMessage removal = listener.Next();
        Assert.Equal(UserfaultfdEventKind.Remove, removal.Kind);
        Assert.Equal((memory.Address + (3 * PageSize), memory.Address + (4 * PageSize)), removal.Range);
        remover.Finish();
        AssertDone(2 * PageSize, Copy(listener, memory, 0, 2, source, out done), done);
    }

    [Fact]
    public void The_kernels_own_access_waits_too()
    {
        using MappedRegion memory = MappedRegion.MapAnonymous(PageSize);
        using var listener = new FaultListener();
        Register(listener, memory, UserfaultfdModes.Missing);
        Waiter<Errno> reader = new(() => KernelAccess(memory.Address));
        Assert.True(listener.NextFault(memory.Address).IsWrite);
        listener.Userfaultfd.ZeroPage(memory.Address, PageSize, UserfaultfdCopyFlags.None, out _);
        Assert.Equal(Errno.None, reader.Finish());
    }

    [Fact]
    public void For_user_mode_only_the_kernels_access_fails_and_the_programs_waits()
    {
        using MappedRegion memory = MappedRegion.MapAnonymous(PageSize);
        using var listener = new FaultListener(userModeOnly: true);
        Register(listener, memory, UserfaultfdModes.Missing);
        Assert.Equal(Errno.EFAULT, KernelAccess(memory.Address));
        listener.AssertQuiet();
        Waiter<byte> reader = Read(memory, 0);
        listener.NextFault(memory.Address);
        listener.Userfaultfd.ZeroPage(memory.Address, PageSize, UserfaultfdCopyFlags.None, out _);
        Assert.Equal(0, reader.Finish());
    }

    [Fact]
    public void A_feature_that_the_kernel_lacks_is_refused_by_name()
    {
        LinuxException failure = Assert.Throws<LinuxException>(() => Userfaultfd.Open(UserfaultfdFeatures.Move | (UserfaultfdFeatures)(1UL << 62)));
        Assert.Equal(Errno.EINVAL, failure.Errno);
        Assert.StartsWith("agree with the kernel on the userfaultfd features", failure.Operation, StringComparison.Ordinal);
    }

    [Fact]
    public void The_probe_finds_what_can_be_opened()
    {
        UserfaultfdProbe probe = Userfaultfd.Probe();
        Assert.Null(probe.Failure);
        Assert.Equal(File.Exists("/dev/userfaultfd"), probe.IsByDevice);
        foreach (UserfaultfdFeatures feature in Enum.GetValues<UserfaultfdFeatures>())
        {
            bool isOpen = Record.Exception(() => Userfaultfd.Open(feature).Dispose()) is null;
            Assert.Equal(isOpen, probe.Features.HasFlag(feature));
        }
    }

    [Fact]
    public void A_descriptor_that_is_taken_over_does_not_block()
    {
        // Opened without O_NONBLOCK: a read would wait.
        var blocking = new FileDescriptor((int)Interop.Syscall(Interop.SYS_userfaultfd, Interop.O_CLOEXEC));
        Assert.False(blocking.IsInvalid);
        using var listener = new FaultListener(Userfaultfd.FromDescriptor(blocking));
        Assert.Equal(Interop.O_NONBLOCK, Interop.Fcntl(blocking.Number, Interop.F_GETFL, 0) & Interop.O_NONBLOCK);

        using var opened = new FaultListener();
        using MappedRegion memory = MappedRegion.MapAnonymous(PageSize);
        using var duplicate = new FaultListener(Userfaultfd.FromDescriptor(opened.Userfaultfd.Descriptor.Duplicate()));
        Register(duplicate, memory, UserfaultfdModes.Missing);
        duplicate.AssertQuiet();
    }

    [Fact]
    public void What_is_no_userfaultfd_is_not_taken_over()
    {
        using var other = new EventFd();
        LinuxException failure = Assert.Throws<LinuxException>(() => Userfaultfd.FromDescriptor(other.Descriptor));
        Assert.Equal(Errno.EINVAL, failure.Errno);
        Assert.Contains("[eventfd]", failure.Message, StringComparison.Ordinal);
        Assert.Contains("closed", Assert.Throws<LinuxException>(() => Userfaultfd.FromDescriptor(new FileDescriptor(-1))).Message, StringComparison.Ordinal);
        other.Signal();
        Assert.Equal(1UL, other.Drain());
    }

    [Fact]
    public void The_fault_path_allocates_nothing()
    {
        using MappedRegion memory = MappedRegion.MapAnonymous(4 * PageSize);
        using MappedRegion source = Source();
        using var buffer = new UserfaultfdEventBuffer(4);
        using var listener = new FaultListener(UserfaultfdFeatures.PageFaultFlagWriteProtect);
        Register(listener, memory, UserfaultfdModes.Missing | UserfaultfdModes.WriteProtect);
        Pass();
        long before = GC.GetAllocatedBytesForCurrentThread();
        Pass();
        Assert.Equal(before, GC.GetAllocatedBytesForCurrentThread());

        void Pass()
        {
            Userfaultfd userfaultfd = listener.Userfaultfd;
            _ = userfaultfd.Copy(memory.Address, source.Address, PageSize, UserfaultfdCopyFlags.None, out _);
            _ = userfaultfd.ZeroPage(memory.Address + PageSize, PageSize, UserfaultfdCopyFlags.None, out _);
            _ = userfaultfd.Continue(memory.Address, PageSize, UserfaultfdCopyFlags.None, out _);
            _ = userfaultfd.Poison(memory.Address, PageSize, UserfaultfdCopyFlags.None, out _);
            _ = userfaultfd.Move(memory.Address + (2 * PageSize), source.Address, PageSize, UserfaultfdMoveFlags.None, out _);
            _ = userfaultfd.WriteProtect(memory.Address, PageSize, UserfaultfdWriteProtectFlags.Protect);
            userfaultfd.Wake(memory.Address, PageSize);
            _ = userfaultfd.Read(buffer);
        }
    }

    private static ulong Register(FaultListener listener, MappedRegion memory, UserfaultfdModes modes) =>
        listener.Userfaultfd.Register(memory.Address, memory.Length, modes);

    private static MappedRegion Source()
    {
        MappedRegion source = MappedRegion.MapAnonymous((ulong)s_content.Length);
        source.CopyIn(0, s_content);
        return source;
    }

    private static UserfaultfdResult Copy(FaultListener listener, MappedRegion memory, ulong page, ulong pages, MappedRegion source, out long done) =>
        listener.Userfaultfd.Copy(memory.Address + (page * PageSize), source.Address, pages * PageSize, UserfaultfdCopyFlags.None, out done);

    private static void AssertDone(ulong bytes, UserfaultfdResult result, long done)
    {
        Assert.Equal(UserfaultfdResult.Done, result);
        Assert.Equal((long)bytes, done);
    }

    private static void AssertFailed(UserfaultfdResult expected, Errno errno, UserfaultfdResult result, long done)
    {
        Assert.Equal(expected, result);
        Assert.Equal(-(long)errno, done);
    }

    /// <summary>Lets the kernel write to an address, which it answers with an error where a program would die.</summary>
    private static Errno KernelAccess(ulong address)
    {
        using var zeros = new FileDescriptor(Interop.Open("/dev/zero", Interop.O_RDONLY | Interop.O_CLOEXEC));

        // SAFETY: the kernel checks the address, and the test's region holds the bytes.
        unsafe
        {
            return Interop.Read(zeros.Number, (void*)address, 8) == 8 ? Errno.None : (Errno)Marshal.GetLastPInvokeError();
        }
    }
}
