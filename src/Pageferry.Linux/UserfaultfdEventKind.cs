namespace Pageferry.Linux;

/// <summary>What a userfaultfd message tells: <c>UFFD_EVENT_</c>. Other values are kept as they are.</summary>
public enum UserfaultfdEventKind
{
    /// <summary><c>UFFD_EVENT_PAGEFAULT</c>.</summary>
    PageFault = 0x12,

    /// <summary><c>UFFD_EVENT_FORK</c>.</summary>
    Fork = 0x13,

    /// <summary><c>UFFD_EVENT_REMAP</c>.</summary>
    Remap = 0x14,

    /// <summary><c>UFFD_EVENT_REMOVE</c>.</summary>
    Remove = 0x15,

    /// <summary><c>UFFD_EVENT_UNMAP</c>.</summary>
    Unmap = 0x16,
}
