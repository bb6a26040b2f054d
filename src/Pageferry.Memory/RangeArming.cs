using System.Buffers.Binary;
using Microsoft.Win32.SafeHandles;
using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>Sets and clears the userfault attribute of ranges: page by page through the state <see cref="PageState.Arming"/>.</summary>
internal sealed class RangeArming(FaultEngine engine)
{
    /// <summary>
    /// Pages that change state under one hold of the placing locks: 64 MiB, some microseconds. Of huge pages 1 GiB, some hundred microseconds: each system call that
    /// hides some has the TLBs flushed, which takes longer than hiding them.
    /// </summary>
    private readonly ulong _pagesPerHold = engine.Memory.FaultPages == 1 ? 16_384UL : 262_144;

    /// <summary>One arming or disarming at a time. Never taken on the fault path.</summary>
    private readonly Lock _lock = new();

    /// <summary>The pages that are being unmapped here, whose removal the kernel tells like anybody else's; under the placing locks.</summary>
    private ulong _ownFirst;
    private ulong _ownEnd;

    private long _armings;

    /// <summary>First pages of what is never armed; changed under both locks, read under either.</summary>
    private readonly HashSet<ulong> _exempt = [];

    internal long Armings => Interlocked.Read(ref _armings);

    /// <summary>Never arms what is faulted in at once, whose first page this is.</summary>
    internal void Exempt(ulong first)
    {
        // A page that is being armed is armed before this returns, and resolved by who asked.
        lock (_lock)
        {
            using (engine.Placing.EnterAll())
            {
                _ = _exempt.Add(first);
            }
        }
    }

    /// <summary>Whether a removal that was read is the work of an arming.</summary>
    internal bool IsOwnRemoval(ulong first, ulong end) => first >= _ownFirst && end <= _ownEnd;

    internal ulong Arm(ulong first, ulong count, UserfaultSemantics semantics, ArmedContent content)
    {
        if (!Enum.IsDefined(semantics) || !Enum.IsDefined(content))
        {
            throw new ArgumentOutOfRangeException(nameof(semantics), $"There are no userfault semantics {semantics} with content {content}.");
        }

        if (engine.RunStill is not { } runStill)
        {
            return ArmLocked(first, count, semantics, content);
        }

        // Before the lock, which a vCPU may have to take before it can park.
        ulong left = 0;
        runStill(() => left = ArmLocked(first, count, semantics, content));
        return left;
    }

    private ulong ArmLocked(ulong first, ulong count, UserfaultSemantics semantics, ArmedContent content)
    {
        lock (_lock)
        {
            _ = Interlocked.Increment(ref _armings);
            return semantics == UserfaultSemantics.AnyAccess ? ArmAny(first, count, content) : ArmUnpopulated(first, count);
        }
    }

    /// <summary>Arms pages whose content is to come again; of a huge page the others stay as they are, and it is hidden until it is whole again.</summary>
    internal void Discard(ulong first, ulong count)
    {
        lock (_lock)
        {
            if (engine.Memory.FaultPages == 1)
            {
                _ = ArmAny(first, count, ArmedContent.Drop);
                return;
            }

            for (ulong huge = engine.Memory.FaultPageOf(first); huge < first + count; huge += engine.Memory.FaultPages)
            {
                ulong from = Math.Max(first, huge);
                DiscardWithin(huge, from, Math.Min(first + count, huge + engine.Memory.FaultPages) - from);
            }
        }
    }

    /// <summary>A huge page can't be dropped in part. What is told to be zero later has what is in guest memory, so that is to be zeros.</summary>
    private void DiscardWithin(ulong huge, ulong first, ulong count)
    {
        bool wasShown = !engine.IsArmedAt(huge);
        Clear(first, count);
        ulong changed = engine.States.ReplaceKnown(first, count, PageState.Absent);
        engine.AddKnown(-(long)changed);
        engine.Follow(first, count);
        if (wasShown)
        {
            // Once, however many runs of it are discarded: where another process owns the guest view, that one is asked.
            HideOwn(huge, engine.Memory.FaultPages, ArmedContent.Keep);
        }
    }

    private void Clear(ulong first, ulong count)
    {
        for (ulong done = 0; done < count;)
        {
            ulong run = engine.States.CountRun(first + done, Math.Min(count - done, _pagesPerHold), PageState.Present);
            engine.Memory.HostViewOfPages(first + done, (int)run).Clear();
            done += Math.Max(1, run);
        }
    }

    internal ulong Disarm(ulong first, ulong count)
    {
        ulong disarmed = 0;
        lock (_lock)
        {
            for (ulong done = 0; done < count; done += _pagesPerHold)
            {
                ulong page = first + done;
                ulong pages = Math.Min(_pagesPerHold, count - done);
                ulong known;
                ulong asked;
                using (engine.Placing.EnterAll())
                {
                    known = engine.States.Replace(page, pages, PageState.Absent, PageState.Zero);
                    asked = engine.States.Replace(page, pages, PageState.Requested, PageState.Zero);
                    disarmed += engine.States.Replace(page, pages, PageState.Arriving, PageState.ArrivingRemoved);
                    engine.Follow(page, pages);
                    if (asked > 0)
                    {
                        engine.SendBack(page, pages);
                    }
                }

                engine.AddKnown((long)(known + asked));
                disarmed += known + asked;
            }
        }

        return disarmed;
    }

    private ulong ArmAny(ulong first, ulong count, ArmedContent content)
    {
        ulong exempt = 0;
        for (ulong done = 0; done < count; done += _pagesPerHold)
        {
            ulong page = first + done;
            ulong pages = Math.Min(_pagesPerHold, count - done);
            lock (engine.Memory.Removing)
            {
                exempt += ArmAtOnce(page, pages, content);
            }
        }

        return exempt;
    }

    /// <returns>How many pages of the run are exempt.</returns>
    private ulong ArmAtOnce(ulong page, ulong count, ArmedContent content)
    {
        ulong arming;
        ulong exempt;
        using (engine.Placing.EnterAll())
        {
            // From here on nobody shows these pages, and who touches one that is hidden waits.
            arming = engine.States.BeginArming(page, count);
            exempt = Spare(page, count);
            arming -= exempt;
            engine.AddKnown(-(long)arming);
            engine.Follow(page, count);
        }

        PageState becomes = PageState.Zero;
        try
        {
            if (arming == count)
            {
                HideOwn(page, count, content);
            }
            else
            {
                HideRuns(page, count, content);
            }

            becomes = PageState.Absent;
        }
        finally
        {
            Finish(page, count, becomes);
        }

        return exempt;
    }

    /// <summary>Takes the exempt pages of a run out of it again. They were placed before, or are placed when they are touched.</summary>
    private ulong Spare(ulong page, ulong count)
    {
        ulong spared = 0;
        foreach (ulong first in _exempt)
        {
            if (first - page < count)
            {
                spared += engine.States.Replace(first, engine.Memory.FaultPages, PageState.Arming, PageState.Zero);
            }
        }

        return spared;
    }

    /// <summary>
    /// Hides the pages that are being armed, and no others: a page in between may be about to be placed. A huge page of which only a part is being armed was not
    /// whole, and so is hidden.
    /// </summary>
    private void HideRuns(ulong page, ulong count, ArmedContent content)
    {
        ulong end = page + count;
        for (ulong at = page; at < end;)
        {
            ulong run = engine.States.CountRun(at, end - at, PageState.Arming);
            run -= run % engine.Memory.FaultPages;
            if (run == 0)
            {
                at += engine.Memory.FaultPages;
                continue;
            }

            HideOwn(at, run, content);
            at += run;
        }
    }

    private void HideOwn(ulong page, ulong count, ArmedContent content)
    {
        using (engine.Placing.EnterAll())
        {
            (_ownFirst, _ownEnd) = (page, page + count);
        }

        try
        {
            engine.Placer.Hide(page, count, content);
        }
        finally
        {
            using (engine.Placing.EnterAll())
            {
                (_ownFirst, _ownEnd) = (0, 0);
            }
        }
    }

    private void Finish(ulong page, ulong count, PageState becomes)
    {
        ulong changed;
        using (engine.Placing.EnterAll())
        {
            changed = engine.States.EndArming(page, count, becomes);
            engine.SendBack(page, count);
        }

        if (becomes == PageState.Zero)
        {
            engine.AddKnown((long)changed);
        }
    }

    /// <summary>Arms the pages that no access has ever populated.</summary>
    /// <returns>How many pages are populated, or exempt.</returns>
    private ulong ArmUnpopulated(ulong first, ulong count)
    {
        const ulong PagesPerScan = 512;
        ulong populated = 0;
        Span<byte> entries = stackalloc byte[(int)PagesPerScan * sizeof(ulong)];
        using SafeFileHandle pagemap = File.OpenHandle("/proc/self/pagemap");
        for (ulong done = 0; done < count; done += PagesPerScan)
        {
            ulong page = first + done;
            ulong pages = Math.Min(PagesPerScan, count - done);
            Span<byte> scanned = entries[..((int)pages * sizeof(ulong))];
            if (engine.Placer.Userfaultfd is null)
            {
                // Accessible memory is populated without a fault. Protected it can be looked at, and what is populated is shown again when it is touched.
                HideUnlessExempt(page, pages);
            }

            using (engine.Placing.EnterAll())
            {
                // With a userfaultfd nothing is populated while the lock is held.
                ReadEntries(pagemap, page, scanned);
                for (ulong i = 0; i < pages; i++)
                {
                    populated += TryArmUnpopulated(page + i, IsPopulated(scanned, i)) ? 0UL : 1;
                }

                engine.Follow(page, pages);
            }
        }

        return populated;
    }

    /// <summary>Hides a run but for the exempt pages in it: nobody shows these again, and a KVM that can't read a page table faults its guest.</summary>
    private void HideUnlessExempt(ulong page, ulong count)
    {
        ulong end = page + count;
        while (page < end)
        {
            ulong exempt = page;
            while (exempt < end && !IsExempt(exempt))
            {
                exempt += engine.Memory.FaultPages;
            }

            if (exempt > page)
            {
                engine.Placer.Hide(page, exempt - page, ArmedContent.Keep);
            }

            page = exempt + engine.Memory.FaultPages;
        }
    }

    private bool IsExempt(ulong page) => _exempt.Contains(engine.Memory.FaultPageOf(page));

    private bool TryArmUnpopulated(ulong page, bool isPopulated)
    {
        if (IsExempt(page))
        {
            return false;
        }

        PageState state = engine.States[page];
        if (state is PageState.Zero or PageState.Removed && !isPopulated && engine.States.Change(page, state, PageState.Absent) == state)
        {
            engine.AddKnown(-1);
            return true;
        }

        return state is not (PageState.Zero or PageState.Removed or PageState.Present);
    }

    private void ReadEntries(SafeFileHandle pagemap, ulong page, Span<byte> entries)
    {
        long offset = (long)(engine.Memory.GuestViewOfPage(page) / Page.Size * sizeof(ulong));
        for (int read = 0; read < entries.Length;)
        {
            int bytes = RandomAccess.Read(pagemap, entries[read..], offset + read);
            read += bytes > 0 ? bytes : throw new LinuxException("read /proc/self/pagemap to find the populated pages", Errno.EIO);
        }
    }

    /// <summary>Bits 63 and 62 of an entry: present, swapped.</summary>
    private static bool IsPopulated(ReadOnlySpan<byte> entries, ulong index) =>
        BinaryPrimitives.ReadUInt64LittleEndian(entries[((int)index * sizeof(ulong))..]) >> 62 != 0;
}
