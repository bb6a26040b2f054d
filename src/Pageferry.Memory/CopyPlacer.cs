using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>Places pages from a buffer: <c>UFFDIO_COPY</c>, for memory that has no host view.</summary>
internal sealed class CopyPlacer(GuestMemory memory) : IPagePlacer
{
    private readonly Userfaultfd _userfaultfd = memory.Userfaultfd;

    public UserfaultfdResult Place(ulong page, ulong count, ulong content, out long done) =>
        _userfaultfd.Copy(memory.GuestViewOfPage(page), content, count * Page.Size, UserfaultfdCopyFlags.None, out done);

    /// <summary>Anonymous memory that has content never faults as missing: the fault was answered while its message was on the way.</summary>
    public UserfaultfdResult PlaceAgain(ulong page) => UserfaultfdResult.AlreadyPresent;

    public UserfaultfdResult PlaceZero(ulong page) => _userfaultfd.ZeroPage(memory.GuestViewOfPage(page), Page.Size, UserfaultfdCopyFlags.None, out _);
}
