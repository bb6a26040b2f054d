using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>Places pages in the guest view of another process that shares the guest's file and its userfaultfd with this one.</summary>
/// <remarks>
/// Content is copied in (<c>UFFDIO_COPY</c>), which the kernel refuses where the file has the page already, whatever this process believes of it. So an engine
/// that takes over from one that died can't undo what the guest wrote since. No page is ever hidden with its content here, but for parts of huge pages, which are not
/// copied in.
/// </remarks>
/// <param name="memory">The memory.</param>
/// <param name="userfaultfd">The userfaultfd, which the guest view is registered with.</param>
/// <param name="owner">Whose guest view it is.</param>
internal sealed class RemotePlacer(GuestMemory memory, Userfaultfd userfaultfd, IGuestViewOwner owner) : IPagePlacer
{
    /// <inheritdoc/>
    public Userfaultfd Userfaultfd => userfaultfd;

    /// <inheritdoc/>
    public UserfaultfdResult Place(ulong page, ulong count, MappedRegion content, ulong offset, out long done) =>
        userfaultfd.Copy(memory.GuestViewOfPage(page), content.Address + offset, count * Page.Size, UserfaultfdCopyFlags.None, out done);

    /// <inheritdoc/>
    public UserfaultfdResult PlaceAgain(ulong page) =>
        userfaultfd.Continue(memory.GuestViewOfPage(page), memory.FaultSize, UserfaultfdCopyFlags.None, out _);

    /// <inheritdoc/>
    public UserfaultfdResult PlaceZero(ulong page) => UserfaultfdPlacer.PlaceZero(memory, userfaultfd, page);

    /// <inheritdoc/>
    public void Wake(ulong page, ulong count) => userfaultfd.Wake(memory.GuestViewOfPage(page), count * Page.Size);

    /// <inheritdoc/>
    public void Hide(ulong page, ulong count, ArmedContent content)
    {
        if (content == ArmedContent.Drop)
        {
            memory.DropContent(page, count);
        }
        else if (memory.FaultPages > 1)
        {
            owner.Unmap(page, count);
        }
        else
        {
            throw new InvalidOperationException("Small pages of another process's guest view can't be hidden with their content.");
        }
    }

    /// <inheritdoc/>
    public void Forget(ulong page, ulong count)
    {
        // Nothing is kept aside.
    }

    /// <inheritdoc/>
    public void Release() => owner.Unregister();

    /// <inheritdoc/>
    public void Dispose() => userfaultfd.Dispose();
}
