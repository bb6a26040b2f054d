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
        return address == ForeignView.Nowhere
            ? UserfaultfdResult.NotRegistered
            : userfaultfd.Copy(address, content.Address + offset, Math.Min(count, together) * Page.Size, UserfaultfdCopyFlags.None, out done);
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
