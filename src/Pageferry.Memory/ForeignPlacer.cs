using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>Places pages in another process by the userfaultfd that it handed over. It registers its memory itself, and nothing of it can be read or hidden here.</summary>
internal sealed class ForeignPlacer(ForeignView view, Userfaultfd userfaultfd) : IPagePlacer
{
    private const ulong AnyAddress = 1 << 30;

    /// <inheritdoc/>
    public Userfaultfd Userfaultfd => userfaultfd;

    /// <summary>Whether there still is a process. Its pages are not registered for write protection, so what is asked for is refused and changes nothing.</summary>
    internal bool IsAlive => userfaultfd.WriteProtect(AnyAddress, Page.Size, UserfaultfdWriteProtectFlags.None) != UserfaultfdResult.ProcessGone;

    /// <inheritdoc/>
    public UserfaultfdResult Place(ulong page, ulong count, MappedRegion content, ulong offset, out long done)
    {
        ulong address = view.AddressOf(page, out ulong together);
        done = 0;
        if (address == ForeignView.Nowhere)
        {
            return UserfaultfdResult.NotRegistered;
        }

        ulong length = Math.Min(count, together) * Page.Size;
        UserfaultfdResult result = userfaultfd.Copy(address, content.Address + offset, length, UserfaultfdCopyFlags.None, out done);

        // Since Linux 6.9 a copy that waits in the kernel for the end of a move or an unmapping finds no mapping and says so, although the event is unread. It stays unread while
        // a placing lock is held, and a copy that begins now looks for that first: it is told to retry. What has no mapping this time too has none.
        return result == UserfaultfdResult.NotRegistered
            ? userfaultfd.Copy(address, content.Address + offset, length, UserfaultfdCopyFlags.None, out done)
            : result;
    }

    /// <inheritdoc/>
    public UserfaultfdResult PlaceAgain(ulong page) => UserfaultfdResult.BadSource;

    /// <inheritdoc/>
    public UserfaultfdResult PlaceZero(ulong page)
    {
        ulong address = view.AddressOf(page, out _);
        return address == ForeignView.Nowhere ? UserfaultfdResult.NotRegistered : userfaultfd.ZeroPage(address, Page.Size, UserfaultfdCopyFlags.None, out _);
    }

    /// <inheritdoc/>
    public void Wake(ulong page, ulong count)
    {
        for (ulong end = page + count; page < end;)
        {
            ulong address = view.AddressOf(page, out ulong together);
            together = Math.Min(together, end - page);
            if (address != ForeignView.Nowhere)
            {
                userfaultfd.Wake(address, together * Page.Size);
            }

            page += together;
        }
    }

    /// <inheritdoc/>
    public void Hide(ulong page, ulong count, ArmedContent content) =>
        throw new InvalidOperationException("Another process's memory can't be armed again: only it can take pages out of its sight.");

    /// <inheritdoc/>
    public void Forget(ulong page, ulong count)
    {
        // Nothing is kept aside.
    }

    /// <inheritdoc/>
    public void Release()
    {
        // Closing the userfaultfd does it.
    }

    /// <inheritdoc/>
    public void Dispose() => userfaultfd.Dispose();
}
