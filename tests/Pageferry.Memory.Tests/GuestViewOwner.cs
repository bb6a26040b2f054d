namespace Pageferry.Memory.Tests;

/// <summary>The process of a guest view, for an engine that is not in it.</summary>
internal sealed class GuestViewOwner(GuestMemory memory) : IGuestViewOwner
{
    /// <summary>How often it was asked to hide pages.</summary>
    internal int Unmaps { get; private set; }

    public void Unmap(ulong page, ulong count)
    {
        Unmaps++;
        memory.Unmap(page, count);
    }

    public void Unregister() => memory.Unregister();

    public void BeginCollapse() => memory.BeginCollapse();
}
