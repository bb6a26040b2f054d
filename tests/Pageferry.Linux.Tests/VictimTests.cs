using static Pageferry.Linux.Tests.FaultListener;

namespace Pageferry.Linux.Tests;

/// <summary>A userfaultfd of another process's memory, and what that process may do with it.</summary>
public sealed class VictimTests : IDisposable
{
    private readonly MappedRegion _source = MappedRegion.MapAnonymous(PageSize);

    public VictimTests() => _source.CopyIn(0, [55]);

    public void Dispose() => _source.Dispose();

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Another_processs_memory_is_served(bool isShared)
    {
        using var victim = new Victim(isShared);
        Waiter<(char Kind, byte Value)> reader = victim.Do('r', 3);
        victim.Listener.NextFault(Page(victim, 3));
        AssertCopied(victim.Listener, Page(victim, 3));
        Assert.Equal(('v', 55), reader.Finish());
        using var map = PageMap.Open(victim.ProcessId);
        var ranges = new PageRange[8];
        Assert.Equal(1, map.Scan(Page(victim, 0), Page(victim, 8), new PageFilter { All = PageCategories.Present }, PageCategories.Present, ranges, out _));
        Assert.Equal(new PageRange(Page(victim, 3), Page(victim, 4), PageCategories.Present), ranges[0]);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Reading_a_poisoned_page_is_a_bus_error(bool isShared)
    {
        using var victim = new Victim(isShared);
        Waiter<(char Kind, byte Value)> reader = victim.Do('r', 1);
        victim.Listener.NextFault(Page(victim, 1));
        Assert.Equal(UserfaultfdResult.Done, victim.Listener.Userfaultfd.Poison(Page(victim, 1), PageSize, UserfaultfdCopyFlags.None, out long done));
        Assert.Equal((long)PageSize, done);
        Assert.Equal('b', reader.Finish().Kind);
        Assert.Equal('b', victim.Do('r', 1).Finish().Kind);
    }

    [Fact]
    public void Pages_of_another_process_are_not_moved()
    {
        using var victim = new Victim(isShared: false);
        Assert.Equal(UserfaultfdResult.Invalid, victim.Listener.Userfaultfd.Move(Page(victim, 0), _source.Address, PageSize, UserfaultfdMoveFlags.None, out long done));
        Assert.Equal(0, done);
    }

    [Theory]
    [InlineData(false, 'd')]
    [InlineData(true, 'd')]
    [InlineData(true, 'p')]
    public void A_removal_is_told_before_the_page_is_missing_again(bool isShared, char command)
    {
        using var victim = new Victim(isShared);
        AssertCopied(victim.Listener, Page(victim, 2));
        Waiter<(char Kind, byte Value)> remover = victim.Do(command, 2);
        FaultMessage removal = victim.Listener.Next();
        Assert.Equal(UserfaultfdEventKind.Remove, removal.Kind);
        Assert.Equal((Page(victim, 2), Page(victim, 3)), removal.Range);
        Assert.Equal(('v', 0), remover.Finish());

        Waiter<(char Kind, byte Value)> reader = victim.Do('r', 2);
        if (isShared && command == 'd')
        {
            // The content stayed in the cache, and only missing pages are registered.
            Assert.Equal(('v', 55), reader.Finish());
            return;
        }

        victim.Listener.NextFault(Page(victim, 2));
        victim.Listener.Userfaultfd.ZeroPage(Page(victim, 2), PageSize, UserfaultfdCopyFlags.None, out _);
        Assert.Equal(('v', 0), reader.Finish());
    }

    [Fact]
    public void An_unmapped_page_is_told_and_takes_no_content()
    {
        using var victim = new Victim(isShared: false);
        Waiter<(char Kind, byte Value)> unmapper = victim.Do('u', 4);
        FaultMessage message = victim.Listener.Next();
        Assert.Equal(UserfaultfdEventKind.Unmap, message.Kind);
        Assert.Equal((Page(victim, 4), Page(victim, 5)), message.Range);
        Assert.Equal(('v', 0), unmapper.Finish());
        Assert.Equal(
            UserfaultfdResult.NotRegistered,
            victim.Listener.Userfaultfd.Copy(Page(victim, 4), _source.Address, PageSize, UserfaultfdCopyFlags.None, out long done));
        Assert.Equal(-(long)Errno.ENOENT, done);
        AssertCopied(victim.Listener, Page(victim, 5));
    }

    [Fact]
    public void Memory_that_moves_is_told_with_its_new_address()
    {
        using var victim = new Victim(isShared: false);
        Waiter<(char Kind, byte Value)> mover = victim.Do('m', 0);
        FaultMessage message = victim.Listener.Next();
        Assert.Equal(UserfaultfdEventKind.Remap, message.Kind);
        (ulong from, ulong to, ulong length) = message.Remap;
        Assert.Equal((victim.Memory, 8 * PageSize), (from, length));
        Assert.NotEqual(victim.Memory, to);

        // The old place is unmapped after it, which is told too.
        FaultMessage unmap = victim.Listener.Next();
        Assert.Equal(UserfaultfdEventKind.Unmap, unmap.Kind);
        Assert.Equal((victim.Memory, Page(victim, 8)), unmap.Range);
        Assert.Equal(('v', 0), mover.Finish());

        Waiter<(char Kind, byte Value)> reader = victim.Do('r', 6);
        victim.Listener.NextFault(to + (6 * PageSize));
        AssertCopied(victim.Listener, to + (6 * PageSize));
        Assert.Equal(('v', 55), reader.Finish());
    }

    [Fact]
    public void A_child_brings_a_userfaultfd_of_its_own()
    {
        using var victim = new Victim(isShared: false);
        Waiter<(char Kind, byte Value)> forker = victim.Do('f', 7);
        FaultMessage message = victim.Listener.Next();
        Assert.Equal(UserfaultfdEventKind.Fork, message.Kind);
        using var child = new FaultListener(Userfaultfd.FromDescriptor(new FileDescriptor(message.ForkDescriptor)));
        child.NextFault(Page(victim, 7));
        victim.Listener.AssertQuiet();
        AssertCopied(child, Page(victim, 7));
        Assert.Equal(('v', 55), forker.Finish());

        // The parent's page is still missing.
        Waiter<(char Kind, byte Value)> reader = victim.Do('r', 7);
        victim.Listener.NextFault(Page(victim, 7));
        AssertCopied(victim.Listener, Page(victim, 7));
        Assert.Equal(('v', 55), reader.Finish());
    }

    [Fact]
    public void A_process_that_is_gone_is_a_result()
    {
        using var victim = new Victim(isShared: false);
        using var map = PageMap.Open(victim.ProcessId);
        victim.Do('r', 0);
        victim.Listener.NextFault(Page(victim, 0));
        victim.End();
        Userfaultfd userfaultfd = victim.Listener.Userfaultfd;
        Assert.Equal(UserfaultfdResult.ProcessGone, userfaultfd.Copy(victim.Memory, _source.Address, PageSize, UserfaultfdCopyFlags.None, out long done));
        Assert.Equal(0, done);
        Assert.Equal(UserfaultfdResult.ProcessGone, userfaultfd.ZeroPage(victim.Memory, PageSize, UserfaultfdCopyFlags.None, out _));
        Assert.Equal(UserfaultfdResult.ProcessGone, userfaultfd.Continue(victim.Memory, PageSize, UserfaultfdCopyFlags.None, out _));
        Assert.Equal(UserfaultfdResult.ProcessGone, userfaultfd.Poison(victim.Memory, PageSize, UserfaultfdCopyFlags.None, out _));
        Assert.Equal(UserfaultfdResult.ProcessGone, userfaultfd.WriteProtect(victim.Memory, PageSize, UserfaultfdWriteProtectFlags.Protect));
        userfaultfd.Wake(victim.Memory, PageSize);
        Assert.Equal(0, map.Scan(Page(victim, 0), Page(victim, 8), default, PageCategories.Present, new PageRange[1], out _));
    }

    private static ulong Page(Victim victim, ulong number) => victim.Memory + (number * PageSize);

    private void AssertCopied(FaultListener listener, ulong address)
    {
        Assert.Equal(UserfaultfdResult.Done, listener.Userfaultfd.Copy(address, _source.Address, PageSize, UserfaultfdCopyFlags.None, out long done));
        Assert.Equal((long)PageSize, done);
    }
}
