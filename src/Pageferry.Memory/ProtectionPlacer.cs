using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>
/// Stops the guest by <c>PROT_NONE</c>, which takes no permission, and lets it in again page by page. Content goes through the host view.
/// </summary>
/// <remarks>
/// Each border between accessible and protected pages costs a mapping of the process, of which there are 65,530 (vm.max_map_count). Filling memory in order
/// needs a few; pages scattered over it need two each.
/// </remarks>
internal sealed class ProtectionPlacer : IPagePlacer
{
    private readonly GuestMemory _memory;

    /// <summary>Takes charge of memory that is accessible.</summary>
    /// <exception cref="ArgumentException">The memory has no host view, by which content could get in.</exception>
    internal ProtectionPlacer(GuestMemory memory)
    {
        if (!memory.HasHostView)
        {
            throw new ArgumentException($"Without userfaultfd a guest's memory needs a host view; {memory.Backing} memory has none. Use a memfd.", nameof(memory));
        }

        _memory = memory;
    }

    /// <inheritdoc/>
    public Userfaultfd? Userfaultfd => null;

    /// <inheritdoc/>
    public UserfaultfdResult Place(ulong page, ulong count, MappedRegion content, ulong offset, out long done)
    {
        if (!_memory.TryTakeHugePages(page, count))
        {
            done = 0;
            return UserfaultfdResult.NoMemory;
        }

        content.Span(offset, (int)count * Page.Size).CopyTo(_memory.HostViewOfPages(page, (int)count));
        UserfaultfdResult result = Show(page, count);
        done = result == UserfaultfdResult.Done ? (long)count * Page.Size : 0;
        return result;
    }

    /// <inheritdoc/>
    public UserfaultfdResult PlaceAgain(ulong page) => _memory.TryTakeHugePages(page, 1) ? Show(page, _memory.FaultPages) : UserfaultfdResult.NoMemory;

    /// <inheritdoc/>
    public UserfaultfdResult PlaceZero(ulong page) => PlaceAgain(page);

    /// <summary>Nobody waits in the kernel.</summary>
    public void Wake(ulong page, ulong count)
    {
    }

    /// <inheritdoc/>
    public void Hide(ulong page, ulong count, ArmedContent content)
    {
        _memory.GuestView.Protect(page * Page.Size, count * Page.Size, MemoryProtection.None);
        if (content == ArmedContent.Drop)
        {
            _memory.DropContent(page, count);
        }
    }

    /// <summary>Nothing is kept aside.</summary>
    public void Forget(ulong page, ulong count)
    {
    }

    /// <inheritdoc/>
    public void Release() => _memory.GuestView.Protect(0, _memory.GuestView.Length, MemoryProtection.ReadWrite);

    /// <inheritdoc/>
    public void Dispose()
    {
    }

    private UserfaultfdResult Show(ulong page, ulong count)
    {
        try
        {
            _memory.GuestView.Protect(page * Page.Size, count * Page.Size, MemoryProtection.ReadWrite);
            return UserfaultfdResult.Done;
        }
        catch (LinuxException refusal) when (refusal.Errno == Errno.ENOMEM)
        {
            return UserfaultfdResult.NoMemory;
        }
    }
}
