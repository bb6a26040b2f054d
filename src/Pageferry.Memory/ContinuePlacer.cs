using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>Places pages whose content was written through the host view: <c>UFFDIO_CONTINUE</c> maps them, nothing is copied.</summary>
internal sealed class ContinuePlacer(GuestMemory memory) : IPagePlacer
{
    private readonly Userfaultfd _userfaultfd = memory.Userfaultfd;

    public UserfaultfdResult Place(ulong page, ulong count, ulong content, out long done) =>
        _userfaultfd.Continue(memory.GuestViewOfPage(page), count * Page.Size, UserfaultfdCopyFlags.None, out done);

    public UserfaultfdResult PlaceAgain(ulong page) => Place(page, 1, 0, out _);

    public UserfaultfdResult PlaceZero(ulong page) => _userfaultfd.ZeroPage(memory.GuestViewOfPage(page), Page.Size, UserfaultfdCopyFlags.None, out _);
}
