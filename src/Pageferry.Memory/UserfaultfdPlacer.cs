using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>Places pages by a userfaultfd that the guest view is registered with.</summary>
/// <remarks>
/// Content that arrives is placed with <c>UFFDIO_COPY</c> on every kind of memory of small pages. Receiving it into shared memory through the host view and
/// mapping it with <c>UFFDIO_CONTINUE</c> saves the copy and costs more: the kernel clears each new page, takes a fault on it, and maps it
/// twice (docs/performance.md). A copy also shows a page whole or not at all.
/// </remarks>
internal sealed class UserfaultfdPlacer : IPagePlacer
{
    /// <summary>How long a page may stay pinned before it counts as one that can't be moved.</summary>
    private const long PatienceMilliseconds = 1000;

    private readonly GuestMemory _memory;
    private readonly UserfaultfdFeatures _features;
    private readonly UserfaultfdModes _modes;
    private Userfaultfd _userfaultfd;

    /// <summary>
    /// Where private memory that is armed keeps its content, and the userfaultfd that lets pages be moved there; null before the first page goes there. It is
    /// one of its own, which is not told of removals: the stash's are nobody's business.
    /// </summary>
    private MappedRegion? _stash;
    private Userfaultfd? _stashUserfaultfd;

    /// <summary>Whether pages of shared memory may have been hidden with their content in the file.</summary>
    private bool _keepsContent;

    /// <summary>Registers the guest view.</summary>
    /// <exception cref="LinuxException">userfaultfd is not permitted or can't do what this backing needs.</exception>
    internal UserfaultfdPlacer(GuestMemory memory, FaultDelivery delivery)
    {
        UserfaultfdFeatures features = UserfaultfdFeatures.EventRemove;
        UserfaultfdModes modes = UserfaultfdModes.Missing;
        if (delivery == FaultDelivery.Exit)
        {
            features |= UserfaultfdFeatures.Sigbus;
        }

        // With MINOR alone a hole would be filled with zeros and no fault: shared memory needs both.
        if (memory.Backing == GuestBacking.Memfd)
        {
            features |= UserfaultfdFeatures.MissingShmem | UserfaultfdFeatures.MinorShmem;
            modes |= UserfaultfdModes.Minor;
        }
        else if (memory.Backing == GuestBacking.Memfd2M)
        {
            features |= UserfaultfdFeatures.MissingHugetlbfs | UserfaultfdFeatures.MinorHugetlbfs;
            modes |= UserfaultfdModes.Minor;
        }
        else if (memory.Backing == GuestBacking.GuestMemfd)
        {
            modes |= UserfaultfdModes.Minor;
        }

        _memory = memory;
        _features = features;
        _modes = modes;
        _userfaultfd = Register(features);
    }

    /// <inheritdoc/>
    public Userfaultfd Userfaultfd => _userfaultfd;

    /// <inheritdoc/>
    public UserfaultfdResult Place(ulong page, ulong count, MappedRegion content, ulong offset, out long done)
    {
        UserfaultfdResult result = _userfaultfd.Copy(_memory.GuestViewOfPage(page), content.Address + offset, count * Page.Size, UserfaultfdCopyFlags.None, out done);
        if (result == UserfaultfdResult.AlreadyPresent && _keepsContent)
        {
            // The file has the page, hidden. The guest can't see it before it is mapped.
            content.Span(offset, Page.Size).CopyTo(_memory.HostViewOfPages(page, 1));
            result = PlaceAgain(page);
            done = result == UserfaultfdResult.Done ? Page.Size : 0;
        }

        if (done > 0)
        {
            Forget(page, (ulong)done / Page.Size);
        }

        return result;
    }

    /// <inheritdoc/>
    public UserfaultfdResult PlaceAgain(ulong page)
    {
        if (_memory.HasHostView)
        {
            return _userfaultfd.Continue(_memory.GuestViewOfPage(page), _memory.FaultSize, UserfaultfdCopyFlags.None, out _);
        }

        if (_stash is null)
        {
            return UserfaultfdResult.BadSource;
        }

        UserfaultfdResult moved = _userfaultfd.Move(
            _memory.GuestViewOfPage(page), _stash.Address + (page * Page.Size), Page.Size, UserfaultfdMoveFlags.None, out _);

        // ENOENT: the page had no content when it was hidden.
        return moved == UserfaultfdResult.NotRegistered ? UserfaultfdResult.BadSource : moved;
    }

    /// <inheritdoc/>
    public UserfaultfdResult PlaceZero(ulong page) => PlaceZero(_memory, _userfaultfd, page);

    /// <summary>Places zeros by a userfaultfd that the guest view is registered with, in whatever process that is.</summary>
    internal static UserfaultfdResult PlaceZero(GuestMemory memory, Userfaultfd userfaultfd, ulong page)
    {
        if (memory.FaultPages == 1)
        {
            return userfaultfd.ZeroPage(memory.GuestViewOfPage(page), Page.Size, UserfaultfdCopyFlags.None, out _);
        }

        // There is no UFFDIO_ZEROPAGE for huge pages. Populated through the host view, the file gets one of zeros.
        if (!memory.TryTakeHugePages(page, 1))
        {
            return UserfaultfdResult.NoMemory;
        }

        UserfaultfdResult result = userfaultfd.Continue(memory.GuestViewOfPage(page), memory.FaultSize, UserfaultfdCopyFlags.None, out _);

        // Gone again: a removal that was told drops it only now.
        return result == UserfaultfdResult.BadSource ? UserfaultfdResult.Retry : result;
    }

    /// <inheritdoc/>
    public void Wake(ulong page, ulong count) => _userfaultfd.Wake(_memory.GuestViewOfPage(page), count * Page.Size);

    /// <inheritdoc/>
    public void Hide(ulong page, ulong count, ArmedContent content)
    {
        if (content == ArmedContent.Drop)
        {
            _memory.DropContent(page, count);
        }
        else if (_memory.HasHostView)
        {
            // Shared content stays in the file.
            _keepsContent = true;
            _memory.UnmapFromGuest(page, count);
        }
        else
        {
            MoveToStash(page, count);
        }
    }

    /// <inheritdoc/>
    public void Forget(ulong page, ulong count) => _stash?.Advise(page * Page.Size, count * Page.Size, MemoryAdvice.DontNeed);

    /// <inheritdoc/>
    public void Release()
    {
        if (_stash is { } stash)
        {
            // What was disarmed and not touched since is still there.
            Move(_userfaultfd, _memory.GuestView.Address, stash.Address, stash.Length);
        }

        _userfaultfd.Unregister(_memory.GuestView.Address, _memory.GuestView.Length);
    }

    /// <summary>
    /// Hands the guest view to another userfaultfd, whose faults are queued. In between its pages are nobody's: no thread may touch it meanwhile.
    /// </summary>
    /// <returns>The one that had it, for <see cref="EndQueue"/>.</returns>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    internal Userfaultfd BeginQueue()
    {
        Userfaultfd before = _userfaultfd;
        before.Unregister(_memory.GuestView.Address, _memory.GuestView.Length);
        try
        {
            _userfaultfd = Register(_features & ~UserfaultfdFeatures.Sigbus);
        }
        catch
        {
            // Left alone, the guest's next touch of a missing page would read zeros.
            _ = before.Register(_memory.GuestView.Address, _memory.GuestView.Length, _modes);
            throw;
        }

        return before;
    }

    /// <summary>Gives the guest view back; again no thread may touch it meanwhile.</summary>
    /// <param name="before">What <see cref="BeginQueue"/> returned.</param>
    internal void EndQueue(Userfaultfd before)
    {
        _userfaultfd.Unregister(_memory.GuestView.Address, _memory.GuestView.Length);
        _userfaultfd.Dispose();
        _ = before.Register(_memory.GuestView.Address, _memory.GuestView.Length, _modes);
        _userfaultfd = before;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _userfaultfd.Dispose();
        _stash?.Dispose();
        _stashUserfaultfd?.Dispose();
    }

    private Userfaultfd Register(UserfaultfdFeatures features)
    {
        var userfaultfd = Userfaultfd.Open(features);
        try
        {
            _ = userfaultfd.Register(_memory.GuestView.Address, _memory.GuestView.Length, _modes);
            return userfaultfd;
        }
        catch
        {
            userfaultfd.Dispose();
            throw;
        }
    }

    /// <summary>Moves private pages out of the guest's sight (<c>UFFDIO_MOVE</c>, Linux 6.8): nothing is copied.</summary>
    private void MoveToStash(ulong page, ulong count)
    {
        if (_stash is null)
        {
            var stash = MappedRegion.MapAnonymous(_memory.GuestView.Length);
            stash.Advise(0, stash.Length, MemoryAdvice.NoHugePage);
            _stashUserfaultfd = Userfaultfd.Open(UserfaultfdFeatures.None);
            _ = _stashUserfaultfd.Register(stash.Address, stash.Length, UserfaultfdModes.Missing);
            _stash = stash;
        }

        ulong at = page * Page.Size;
        Move(_stashUserfaultfd!, _stash.Address + at, _memory.GuestView.Address + at, count * Page.Size);
    }

    /// <summary>Moves private pages, passing over those that have no content.</summary>
    private static void Move(Userfaultfd userfaultfd, ulong destination, ulong source, ulong length)
    {
        long begun = Environment.TickCount64;
        for (ulong at = 0; at < length;)
        {
            UserfaultfdResult result = userfaultfd.Move(
                destination + at, source + at, length - at, UserfaultfdMoveFlags.AllowSourceHoles | UserfaultfdMoveFlags.DontWake, out long done);
            switch (result)
            {
                case UserfaultfdResult.Done or UserfaultfdResult.Retry:
                    break;

                // Pinned: somebody is reading or writing it by a system call just now.
                case UserfaultfdResult.Busy when Environment.TickCount64 - begun < PatienceMilliseconds:
                    _ = Thread.Yield();
                    break;

                // It was disarmed, not touched since, and is still there.
                case UserfaultfdResult.AlreadyPresent:
                    done = Page.Size;
                    break;

                default:
                    throw new LinuxException(
                        $"move {length - at} bytes of private memory out of the guest's sight, or back",
                        done < 0 ? (Errno)(-done) : Errno.EINVAL,
                        "Keeping the content of armed anonymous memory takes UFFDIO_MOVE (Linux 6.8) and pages that nobody pins. A memfd needs neither; or let the content be dropped.");
            }

            at += (ulong)Math.Max(0, done);
        }
    }
}
