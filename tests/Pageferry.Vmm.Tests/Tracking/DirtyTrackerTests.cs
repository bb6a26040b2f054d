using System.Diagnostics;
using Pageferry.Memory;

namespace Pageferry.Vmm.Tests.Tracking;

/// <summary>What holds of everything that tells which pages were written. Each source is a class of its own, with these tests and those that are for it alone.</summary>
public abstract class DirtyTrackerTests(HugePages hugePages) : IClassFixture<HugePages>
{
    /// <summary>Where the tests' own pages begin: another huge page than the guest's code and tables.</summary>
    protected const ulong FirstPage = 1024;

    private const ulong Size = 16UL << 20;

    /// <summary>Pages that are sent together.</summary>
    private const ulong Stripe = 512;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    public static TheoryData<GuestBacking> Backings => [GuestBacking.Memfd, GuestBacking.Anonymous, GuestBacking.Memfd2M];

    /// <summary>Held as long as the tests run.</summary>
    protected HugePages HugePages { get; } = hugePages;

    /// <summary>A machine with a built-in guest.</summary>
    protected abstract IMachine Create(MachineConfiguration configuration, string guest);

    /// <summary>A machine whose guest writes what it is told to.</summary>
    protected abstract PageWriter CreateWriter(GuestMemory memory);

    [Theory]
    [MemberData(nameof(Backings))]
    public void A_page_written_by_the_guest_is_told_once_after_each_rearm(GuestBacking backing)
    {
        using PageWriter guest = CreateWriter(GuestMemory.Create(Size, backing));
        using IDirtyTracker tracker = Track(guest.Machine);
        ulong[] pages = [FirstPage, FirstPage + 3, FirstPage + 63, FirstPage + 64, FirstPage + Stripe];
        for (int round = 0; round < 3; round++)
        {
            guest.Write(pages);
            AssertTold(guest.Machine, pages, Fetch(guest.Machine, tracker));
            RearmAll(guest.Machine, tracker);
            Assert.Empty(Fetch(guest.Machine, tracker));
        }
    }

    [Theory]
    [MemberData(nameof(Backings))]
    public void A_page_written_by_the_host_is_told_once_after_each_rearm(GuestBacking backing)
    {
        using PageWriter guest = CreateWriter(GuestMemory.Create(Size, backing));
        using IDirtyTracker tracker = Track(guest.Machine);
        ulong[] pages = [FirstPage + 1, FirstPage + 64, FirstPage + Stripe + 5];
        for (int round = 0; round < 3; round++)
        {
            foreach (ulong page in pages)
            {
                guest.Machine.Memory.Write(guest.Machine.Memory.GpaOf(page), [1]);
            }

            AssertTold(guest.Machine, pages, Fetch(guest.Machine, tracker));
            RearmAll(guest.Machine, tracker);
            Assert.Empty(Fetch(guest.Machine, tracker));
        }
    }

    [Theory]
    [MemberData(nameof(Backings))]
    public void Where_nothing_is_written_nothing_is_told(GuestBacking backing)
    {
        using PageWriter guest = CreateWriter(GuestMemory.Create(Size, backing));
        guest.Write([FirstPage, FirstPage + 1]);

        // A huge page that has no content yet gets it by being read, which is told.
        guest.Machine.Memory.ReadPages(0, new byte[Size]);
        using IDirtyTracker tracker = Track(guest.Machine);
        var dirty = new PageBitmap(guest.Machine.Memory.PageCount);
        for (int round = 0; round < 3; round++)
        {
            // Reading is not writing.
            guest.Machine.Memory.ReadPages(0, new byte[Size]);
            tracker.Fetch(dirty);
            Assert.Equal(0UL, dirty.CountPages());
            tracker.Rearm(0, dirty.PageCount);
        }
    }

    [Theory]
    [MemberData(nameof(Backings))]
    public void What_is_written_between_fetch_and_rearm_is_not_lost(GuestBacking backing)
    {
        using PageWriter guest = CreateWriter(GuestMemory.Create(Size, backing));
        using IDirtyTracker tracker = Track(guest.Machine);
        guest.Write([FirstPage]);
        AssertTold(guest.Machine, [FirstPage], Fetch(guest.Machine, tracker));

        // The page that was told, its neighbour, and one of another stripe: what was not told yet is told next.
        guest.Write([FirstPage, FirstPage + 1, FirstPage + Stripe]);
        tracker.Rearm(FirstPage, Stripe);
        Assert.Equal(2, guest.Read(FirstPage));
        ulong[] told = Fetch(guest.Machine, tracker);
        Assert.Contains(FirstPage + Stripe, told);

        // Where a page of a huge one is told, all are: its neighbour is among the pages that are read.
        if (guest.Machine.Memory.FaultSize == Page.Size)
        {
            Assert.Contains(FirstPage + 1, told);
        }
    }

    [Theory]
    [MemberData(nameof(Backings))]
    public void What_is_written_after_a_rearm_is_told_also_if_the_page_is_rearmed_again(GuestBacking backing)
    {
        using PageWriter guest = CreateWriter(GuestMemory.Create(Size, backing));
        using IDirtyTracker tracker = Track(guest.Machine);
        guest.Write([FirstPage]);
        _ = Fetch(guest.Machine, tracker);
        tracker.Rearm(FirstPage, Stripe);
        guest.Write([FirstPage]);
        tracker.Rearm(FirstPage, Stripe);
        Assert.Contains(FirstPage, Fetch(guest.Machine, tracker));
    }

    /// <summary>Pre-copy as it is done: what is dirty is rearmed and copied stripe by stripe while guest and host write, round by round; the last while all stands still.</summary>
    [Theory]
    [MemberData(nameof(Backings))]
    public void Writes_that_race_with_rounds_never_lose_a_page(GuestBacking backing)
    {
        (int copies, ulong stale) = CopyWhileItRuns(backing, tracker => tracker);
        Assert.True(copies > 2, $"{copies} copies");
        Assert.Equal(0UL, stale);
    }

    [Fact]
    public void A_tracker_that_rearms_after_the_page_was_read_would_be_found_out()
    {
        (_, ulong stale) = CopyWhileItRuns(GuestBacking.Memfd, tracker => new ForgetfulTracker(tracker));
        Assert.NotEqual(0UL, stale);
    }

    [Fact]
    public void When_tracking_ends_the_guest_has_its_speed_back()
    {
        using IMachine machine = Create(new MachineConfiguration(Size), "stamp");
        machine.Start();
        Assert.True(SpinWait.SpinUntil(() => machine.Progress.Passes > 2, s_patience));
        double before = Enumerable.Range(0, 5).Max(_ => PassesPerSecond(machine));
        using (IDirtyTracker tracker = machine.TrackDirtyPages())
        {
            var dirty = new PageBitmap(machine.Memory.PageCount);
            for (int round = 0; round < 20; round++)
            {
                tracker.Rearm(0, dirty.PageCount);
                Thread.Sleep(5);
                tracker.Fetch(dirty);
            }
        }

        // It may be the machine that is slow just then.
        double after = 0;
        Assert.True(
            SpinWait.SpinUntil(() => (after = Math.Max(after, PassesPerSecond(machine))) > before * 0.6, s_patience),
            $"{before:N0} passes per second before, {after:N0} after");

        // And it can begin again.
        using IDirtyTracker again = Track(machine, pause: true);
        machine.Memory.Write(machine.Memory.GpaOf(FirstPage) + 100, [1]);
        Assert.Contains(FirstPage, Fetch(machine, again));
    }

    /// <summary>Begins to track, with all pages rearmed and nothing told yet.</summary>
    protected static IDirtyTracker Track(IMachine machine, bool pause = false)
    {
        if (pause)
        {
            machine.Pause();
        }

        IDirtyTracker tracker = machine.TrackDirtyPages();
        tracker.Rearm(0, machine.Memory.PageCount);
        var dirty = new PageBitmap(machine.Memory.PageCount);
        tracker.Fetch(dirty);
        tracker.Rearm(0, machine.Memory.PageCount);
        return tracker;
    }

    /// <summary>Those of the tests' own pages that are told.</summary>
    protected static ulong[] Fetch(IMachine machine, IDirtyTracker tracker)
    {
        var dirty = new PageBitmap(machine.Memory.PageCount);
        tracker.Fetch(dirty);
        return [.. Enumerable.Range((int)FirstPage, (int)(machine.Memory.PageCount - FirstPage)).Select(page => (ulong)page).Where(page => dirty[page])];
    }

    private static void RearmAll(IMachine machine, IDirtyTracker tracker)
    {
        for (ulong stripe = 0; stripe < machine.Memory.PageCount; stripe += Stripe)
        {
            tracker.Rearm(stripe, Math.Min(Stripe, machine.Memory.PageCount - stripe));
        }
    }

    private static void AssertTold(IMachine machine, ulong[] written, ulong[] told)
    {
        Assert.All(written, page => Assert.Contains(page, told));
        ulong unit = machine.Memory.FaultSize / Page.Size;
        Assert.All(told, page => Assert.Contains(page / unit, written.Select(one => one / unit)));
    }

    private static double PassesPerSecond(IMachine machine)
    {
        long began = Stopwatch.GetTimestamp();
        ulong passes = machine.Progress.Passes;
        Thread.Sleep(100);
        return (machine.Progress.Passes - passes) / Stopwatch.GetElapsedTime(began).TotalSeconds;
    }

    /// <returns>How often all was copied, and how many pages the copies had wrong.</returns>
    private (int Copies, ulong Stale) CopyWhileItRuns(GuestBacking backing, Func<IDirtyTracker, IDirtyTracker> wrap)
    {
        const int Rounds = 3;
        using IMachine machine = Create(new MachineConfiguration(Size, 2, backing), "stamp");
        machine.Start();
        Assert.True(SpinWait.SpinUntil(() => machine.Progress.Passes > 1, s_patience));
        using IDirtyTracker tracker = wrap(machine.TrackDirtyPages());
        using var host = new HostWriter(machine.Memory);
        var copy = new byte[Size];
        var dirty = new PageBitmap(machine.Memory.PageCount);
        dirty.AddRun(0, dirty.PageCount);
        int copies = 0;
        ulong stale = 0;
        for (long began = Stopwatch.GetTimestamp(); copies < 3 || Stopwatch.GetElapsedTime(began).TotalSeconds < 1.5; copies++)
        {
            for (int round = 0; round < Rounds; round++)
            {
                // Two send, each its own stripes.
                _ = Parallel.For(0, 2, sender => Send(machine.Memory, tracker, dirty, copy, (ulong)sender, 2));
                tracker.Fetch(dirty);
            }

            machine.Pause();
            lock (host.Gate)
            {
                tracker.Fetch(dirty);
                Send(machine.Memory, tracker, dirty, copy, 0, 1);
                stale += CountStale(machine.Memory, copy);
            }

            machine.Resume();
        }

        Assert.Null(machine.Progress.Failure);
        return (copies, stale);
    }

    private static ulong CountStale(GuestMemory memory, byte[] copy)
    {
        var page = new byte[Page.Size];
        ulong stale = 0;
        for (ulong number = 0; number < memory.PageCount; number++)
        {
            memory.ReadPages(number, page);
            stale += page.AsSpan().SequenceEqual(copy.AsSpan((int)number * Page.Size, Page.Size)) ? 0UL : 1;
        }

        return stale;
    }

    private static void Send(GuestMemory memory, IDirtyTracker tracker, PageBitmap dirty, byte[] copy, ulong sender, ulong senders)
    {
        for (ulong stripe = sender * Stripe; stripe < memory.PageCount; stripe += Stripe * senders)
        {
            ulong end = Math.Min(stripe + Stripe, memory.PageCount);
            ulong page = dirty.Next(stripe, end);
            if (page < end)
            {
                tracker.Rearm(stripe, end - stripe);
            }

            for (; page < end; page = dirty.Next(page, end))
            {
                _ = dirty.Take(page);
                memory.ReadPages(page, copy.AsSpan((int)page * Page.Size, Page.Size));
            }
        }
    }

    /// <summary>Rearms a while after it has told, and forgets what was written meanwhile: as it would be if a page was read first and rearmed then.</summary>
    private sealed class ForgetfulTracker(IDirtyTracker tracker) : IDirtyTracker
    {
        public void Fetch(PageBitmap dirty)
        {
            tracker.Fetch(dirty);
            Thread.Sleep(1);
            tracker.Rearm(0, dirty.PageCount);
            tracker.Fetch(new PageBitmap(dirty.PageCount));
            tracker.Rearm(0, dirty.PageCount);
        }

        public void Rearm(ulong page, ulong count)
        {
            // Done already.
        }

        public void Dispose() => tracker.Dispose();
    }
}
