namespace Pageferry.Memory;

/// <summary>What only the process can do that has the guest view, for an engine in another one. Called from any thread, one call at a time or several.</summary>
public interface IGuestViewOwner
{
    /// <summary>Unmaps pages from the guest view as the kernel may do at any time: their content stays in the file. May wait until the removal that this tells was read.</summary>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many pages.</param>
    /// <exception cref="Exception">It could not.</exception>
    void Unmap(ulong page, ulong count);

    /// <summary>Lets the guest go on without userfaults; done once, however often it is asked for.</summary>
    /// <exception cref="Exception">It could not.</exception>
    void Unregister();

    /// <summary>Begins to make huge pages of small ones (<see cref="GuestMemory.BeginCollapse"/>).</summary>
    /// <exception cref="Exception">It could not.</exception>
    void BeginCollapse();
}
