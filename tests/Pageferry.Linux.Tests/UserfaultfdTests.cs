namespace Pageferry.Linux.Tests;

public class UserfaultfdTests
{
    private const ulong Page = Armed.PageBytes;

    [Fact]
    public void The_kernel_is_asked_what_it_can_do()
    {
        UserfaultfdFeatures features = Userfaultfd.Probe();
        Assert.True(features.HasFlag(UserfaultfdFeatures.MissingShmem | UserfaultfdFeatures.MinorShmem | UserfaultfdFeatures.EventRemove));
    }

    [Fact]
    public void A_feature_that_no_kernel_has_is_refused_by_name()
    {
        LinuxException failure = Assert.Throws<LinuxException>(() => Userfaultfd.Open((UserfaultfdFeatures)(1UL << 62)));
        Assert.Equal(Errno.EINVAL, failure.Errno);
        Assert.Contains("userfaultfd features", failure.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_missing_page_waits_until_it_is_copied()
    {
        using var armed = new Armed(MappedRegion.MapAnonymous(4 * Page), UserfaultfdModes.Missing, UserfaultfdFeatures.ThreadId);
        Touch touch = Touch.Read(armed.Region, (2 * Page) + 5);
        UserfaultfdEvent fault = armed.Next();
        Assert.Equal(UserfaultfdEventKind.PageFault, fault.Kind);
        Assert.Equal(armed.At(2), fault.Address);
        Assert.False(fault.IsWrite || fault.IsMinor || fault.IsWriteProtect);
        Assert.NotEqual(0U, fault.ThreadId);
        Assert.True(touch.IsWaiting());
        Assert.Equal(UserfaultfdResult.Done, armed.Copy(2, 1, out long done));
        Assert.Equal((long)Page, done);
        Assert.Equal(1, touch.Done());
    }

    [Fact]
    public void A_write_is_told_and_an_exact_address_where_asked_for()
    {
        using var armed = new Armed(MappedRegion.MapAnonymous(Page), UserfaultfdModes.Missing, UserfaultfdFeatures.ExactAddress);
        Touch touch = Touch.Write(armed.Region, 77, 9);
        UserfaultfdEvent fault = armed.Next();
        Assert.True(fault.IsWrite);
        Assert.Equal(armed.Region.Address + 77, fault.Address);
        Assert.Equal(UserfaultfdResult.Done, armed.Userfaultfd.ZeroPage(armed.At(0), Page, UserfaultfdCopyFlags.None, out long done));
        Assert.Equal((long)Page, done);
        _ = touch.Done();
        Assert.Equal(9, armed.Region.Span(77, 1)[0]);
    }

    [Fact]
    public void Who_waits_is_woken_only_when_asked()
    {
        using var armed = new Armed(MappedRegion.MapAnonymous(Page), UserfaultfdModes.Missing);
        Touch touch = Touch.Read(armed.Region, 0);
        _ = armed.Next();
        Assert.Equal(UserfaultfdResult.Done, armed.Copy(0, 1, out _, UserfaultfdCopyFlags.DontWake));
        Assert.True(touch.IsWaiting());
        armed.Userfaultfd.Wake(armed.At(0), Page);
        Assert.Equal(1, touch.Done());
    }

    [Fact]
    public void A_wake_without_a_page_is_a_second_fault()
    {
        using var armed = new Armed(MappedRegion.MapAnonymous(Page), UserfaultfdModes.Missing);
        Touch touch = Touch.Read(armed.Region, 0);
        _ = armed.Next();
        armed.Userfaultfd.Wake(armed.At(0), Page);
        Assert.Equal(armed.At(0), armed.Next().Address);
        Assert.Equal(UserfaultfdResult.Done, armed.Copy(0, 1, out _));
        _ = touch.Done();
    }

    [Fact]
    public void What_the_kernel_answers_is_told_apart()
    {
        using var armed = new Armed(MappedRegion.MapAnonymous(8 * Page), UserfaultfdModes.Missing);
        Assert.Equal(UserfaultfdResult.Done, armed.Copy(2, 1, out _));
        Assert.Equal(UserfaultfdResult.AlreadyPresent, armed.Copy(2, 1, out long done));
        Assert.Equal(-(long)Errno.EEXIST, done);

        // Two of four pages, then one that is there: a part was done.
        Assert.Equal(UserfaultfdResult.Retry, armed.Copy(0, 4, out done));
        Assert.Equal(2 * (long)Page, done);
        Assert.Equal(UserfaultfdResult.NotRegistered, armed.Copy(7, 2, out _));
        Assert.Equal(UserfaultfdResult.Invalid, armed.Userfaultfd.Copy(armed.At(4) + 1, armed.Content(), Page, UserfaultfdCopyFlags.None, out _));
        Assert.Equal(UserfaultfdResult.BadSource, armed.Userfaultfd.Copy(armed.At(4), 0x1000, Page, UserfaultfdCopyFlags.None, out done));
        Assert.Equal(-(long)Errno.EFAULT, done);
        Assert.Equal(UserfaultfdResult.AlreadyPresent, armed.Userfaultfd.ZeroPage(armed.At(2), Page, UserfaultfdCopyFlags.None, out _));
    }

    [Fact]
    public void A_minor_fault_is_continued_with_what_the_file_holds()
    {
        using MemoryFile file = MemoryFile.Create("minor", 2 * Page);
        using MappedRegion host = MappedRegion.MapShared(file.Descriptor, 0, 2 * Page);
        using var armed = new Armed(
            MappedRegion.MapShared(file.Descriptor, 0, 2 * Page),
            UserfaultfdModes.Missing | UserfaultfdModes.Minor,
            UserfaultfdFeatures.MissingShmem | UserfaultfdFeatures.MinorShmem);
        Assert.Equal(UserfaultfdResult.BadSource, armed.Userfaultfd.Continue(armed.At(0), Page, UserfaultfdCopyFlags.None, out _));
        host.Span(0, 1)[0] = 42;
        Touch touch = Touch.Read(armed.Region, 0);
        Assert.True(armed.Next().IsMinor);
        Assert.Equal(UserfaultfdResult.Done, armed.Userfaultfd.Continue(armed.At(0), Page, UserfaultfdCopyFlags.None, out long done));
        Assert.Equal((long)Page, done);
        Assert.Equal(42, touch.Done());

        touch = Touch.Read(armed.Region, Page);
        Assert.False(armed.Next().IsMinor);
        Assert.Equal(UserfaultfdResult.Done, armed.Copy(1, 1, out _));
        Assert.Equal(1, touch.Done());
        Assert.Equal(1, host.Span(Page, 1)[0]);
    }

    [Fact]
    public void A_protected_page_waits_for_its_write()
    {
        using var armed = new Armed(
            MappedRegion.MapAnonymous(Page), UserfaultfdModes.Missing | UserfaultfdModes.WriteProtect, UserfaultfdFeatures.PageFaultFlagWriteProtect);
        Assert.Equal(UserfaultfdResult.Done, armed.Copy(0, 1, out _, UserfaultfdCopyFlags.WriteProtect));
        Touch touch = Touch.Write(armed.Region, 3, 7);
        UserfaultfdEvent fault = armed.Next();
        Assert.True(fault.IsWriteProtect);
        Assert.True(touch.IsWaiting());
        Assert.Equal(UserfaultfdResult.Done, armed.Userfaultfd.WriteProtect(armed.At(0), Page, isProtected: false));
        _ = touch.Done();
        Assert.Equal(7, armed.Region.Span(3, 1)[0]);
        Assert.Equal(UserfaultfdResult.Done, armed.Userfaultfd.WriteProtect(armed.At(0), Page, isProtected: true));
        touch = Touch.Write(armed.Region, 3, 8);
        Assert.True(armed.Next().IsWriteProtect);
        Assert.Equal(UserfaultfdResult.Done, armed.Userfaultfd.WriteProtect(armed.At(0), Page, isProtected: false));
        _ = touch.Done();
    }

    [Fact]
    public void A_moved_page_leaves_its_source_empty()
    {
        using var armed = new Armed(MappedRegion.MapAnonymous(2 * Page), UserfaultfdModes.Missing, UserfaultfdFeatures.Move);
        Touch touch = Touch.Read(armed.Region, 0);
        _ = armed.Next();
        Assert.Equal(UserfaultfdResult.Done, armed.Userfaultfd.Move(armed.At(0), armed.Content(4), Page, UserfaultfdMoveFlags.None, out long done));
        Assert.Equal((long)Page, done);
        Assert.Equal(5, touch.Done());
        Assert.Equal(0, armed.ContentRegion.Span(4 * Page, 1)[0]);
        armed.ContentRegion.Advise(5 * Page, Page, MemoryAdvice.DontNeed);
        Assert.Equal(UserfaultfdResult.NotRegistered, armed.Userfaultfd.Move(armed.At(1), armed.Content(5), Page, UserfaultfdMoveFlags.None, out _));
        Assert.Equal(UserfaultfdResult.Done, armed.Userfaultfd.Move(armed.At(1), armed.Content(5), Page, UserfaultfdMoveFlags.AllowSourceHoles, out _));
    }

    [Fact]
    public void A_poisoned_page_fails_where_it_is_touched()
    {
        using var armed = new Armed(MappedRegion.MapAnonymous(Page), UserfaultfdModes.Missing, UserfaultfdFeatures.Poison);
        Assert.Equal(UserfaultfdResult.Done, armed.Userfaultfd.Poison(armed.At(0), Page, UserfaultfdCopyFlags.None, out long done));
        Assert.Equal((long)Page, done);
        Assert.Equal(UserfaultfdResult.AlreadyPresent, armed.Userfaultfd.Poison(armed.At(0), Page, UserfaultfdCopyFlags.None, out _));

        // The kernel's own access is EFAULT, where ours would be SIGBUS.
        using var other = new Armed(MappedRegion.MapAnonymous(Page), UserfaultfdModes.Missing);
        Assert.Equal(UserfaultfdResult.BadSource, other.Userfaultfd.Copy(other.At(0), armed.At(0), Page, UserfaultfdCopyFlags.None, out _));
    }

    [Fact]
    public void Nothing_is_placed_while_a_removal_is_unread()
    {
        using var armed = new Armed(MappedRegion.MapAnonymous(4 * Page), UserfaultfdModes.Missing, UserfaultfdFeatures.EventRemove);
        Assert.Equal(UserfaultfdResult.Done, armed.Copy(1, 2, out _));
        var remover = new Thread(() => armed.Region.Advise(Page, 2 * Page, MemoryAdvice.DontNeed)) { IsBackground = true };
        remover.Start();
        Assert.True(SpinWait.SpinUntil(() => armed.Copy(0, 1, out long done) == UserfaultfdResult.Retry && done == -(long)Errno.EAGAIN, TimeSpan.FromSeconds(20)));
        UserfaultfdEvent removal = armed.Next();
        Assert.Equal(UserfaultfdEventKind.Remove, removal.Kind);
        Assert.Equal(armed.At(1), removal.Start);
        Assert.Equal(armed.At(3), removal.End);
        Assert.True(remover.Join(TimeSpan.FromSeconds(20)));
        Assert.Equal(UserfaultfdResult.Done, armed.Copy(1, 1, out _));
    }

    [Fact]
    public void Unmapped_memory_is_told()
    {
        using var armed = new Armed(MappedRegion.MapAnonymous(Page), UserfaultfdModes.Missing, UserfaultfdFeatures.EventUnmap);
        ulong address = armed.At(0);
        var unmapper = new Thread(armed.Region.Dispose) { IsBackground = true };
        unmapper.Start();
        UserfaultfdEvent unmapped = armed.Next();
        Assert.Equal(UserfaultfdEventKind.Unmap, unmapped.Kind);
        Assert.Equal(address, unmapped.Start);
        Assert.Equal(address + Page, unmapped.End);
        Assert.True(unmapper.Join(TimeSpan.FromSeconds(20)));
    }

    [Fact]
    public void A_range_is_registered_once()
    {
        using var armed = new Armed(MappedRegion.MapAnonymous(Page), UserfaultfdModes.Missing);

        // Bits of the requests that work on anonymous memory: WAKE, COPY, ZEROPAGE among them.
        Assert.Equal(0b1_1100UL, armed.Ioctls & 0b1_1100);
        using var second = Userfaultfd.Open(UserfaultfdFeatures.None);
        Assert.Equal(Errno.EBUSY, Assert.Throws<LinuxException>(() => second.Register(armed.At(0), Page, UserfaultfdModes.Missing)).Errno);
        Assert.Equal(Errno.EINVAL, Assert.Throws<LinuxException>(() => second.Register(armed.At(0), Page, UserfaultfdModes.None)).Errno);
        Touch touch = Touch.Read(armed.Region, 0);
        _ = armed.Next();
        armed.Userfaultfd.Unregister(armed.At(0), Page);
        Assert.Equal(0, touch.Done());
    }

    [Fact]
    public void A_userfaultfd_for_user_space_only_leaves_the_kernels_accesses_alone()
    {
        using MappedRegion region = MappedRegion.MapAnonymous(Page);
        using Userfaultfd userfaultfd = Userfaultfd.OpenUserModeOnly(UserfaultfdFeatures.None);
        _ = userfaultfd.Register(region.Address, region.Length, UserfaultfdModes.Missing);
        using var other = new Armed(MappedRegion.MapAnonymous(Page), UserfaultfdModes.Missing);
        Assert.Equal(UserfaultfdResult.BadSource, other.Userfaultfd.Copy(other.At(0), region.Address, Page, UserfaultfdCopyFlags.None, out _));
        userfaultfd.Unregister(region.Address, region.Length);
    }

    [Fact]
    public void A_userfaultfd_that_was_handed_over_answers_faults()
    {
        using var armed = new Armed(MappedRegion.MapAnonymous(Page), UserfaultfdModes.Missing);
        (UnixSocket here, UnixSocket there) = UnixSocket.CreatePair();
        using (here)
        using (there)
        {
            here.Send([1], armed.Userfaultfd.Descriptor);
            Assert.Equal(1, there.Receive(new byte[8], out FileDescriptor[] received));
            using var handed = Userfaultfd.FromDescriptor(Assert.Single(received));
            Touch touch = Touch.Read(armed.Region, 0);
            _ = armed.Next();
            Assert.Equal(UserfaultfdResult.Done, handed.Copy(armed.At(0), armed.Content(), Page, UserfaultfdCopyFlags.None, out _));
            Assert.Equal(1, touch.Done());
        }
    }

    [Fact]
    public void Many_messages_are_read_at_once()
    {
        using var armed = new Armed(MappedRegion.MapAnonymous(8 * Page), UserfaultfdModes.Missing);
        Touch[] touches = [.. Enumerable.Range(0, 8).Select(page => Touch.Read(armed.Region, (ulong)page * Page))];
        using var buffer = new UserfaultfdEventBuffer(8);
        var seen = new HashSet<ulong>();
        int most = 0;
        Assert.True(SpinWait.SpinUntil(() => touches.All(touch => touch.IsWaiting()), TimeSpan.FromSeconds(20)));
        while (seen.Count < 8)
        {
            int read = armed.Userfaultfd.Read(buffer);
            most = Math.Max(most, read);
            for (int i = 0; i < read; i++)
            {
                Assert.True(seen.Add(buffer[i].Address));
            }
        }

        Assert.True(most > 1);
        Assert.Equal(UserfaultfdResult.Done, armed.Copy(0, 8, out _));
        Assert.All(touches, touch => touch.Done());
    }
}
