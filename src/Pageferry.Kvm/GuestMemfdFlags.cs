namespace Pageferry.Kvm;

/// <summary>What a guest_memfd can do: <c>GUEST_MEMFD_FLAG_</c>.</summary>
[Flags]
public enum GuestMemfdFlags : ulong
{
    /// <summary>This process can't map it.</summary>
    None = 0,

    /// <summary><c>GUEST_MEMFD_FLAG_MMAP</c>: it can be mapped.</summary>
    Mmap = 1,

    /// <summary><c>GUEST_MEMFD_FLAG_INIT_SHARED</c>: what is mapped can be accessed.</summary>
    InitShared = 2,
}
