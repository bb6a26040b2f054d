using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>What a process that runs a guest shares of its memory with an engine in another process.</summary>
/// <param name="Address">Where the guest view begins in the process that runs the guest.</param>
/// <param name="File">The file that holds the memory.</param>
/// <param name="Userfaultfd">What the guest view is registered with.</param>
public sealed record GuestViewShare(ulong Address, FileDescriptor File, FileDescriptor Userfaultfd) : IDisposable
{
    /// <summary>Closes the descriptors.</summary>
    public void Dispose()
    {
        File.Dispose();
        Userfaultfd.Dispose();
    }
}
