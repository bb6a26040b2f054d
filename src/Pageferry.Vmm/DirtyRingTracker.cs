using Pageferry.Memory;

namespace Pageferry.Vmm;

/// <summary>Tells which pages a KVM guest wrote, or KVM for it, by the dirty rings of its vCPUs.</summary>
/// <param name="rings">The rings.</param>
internal sealed class DirtyRingTracker(DirtyRings rings) : IDirtyTracker
{
    /// <inheritdoc/>
    public void Fetch(PageBitmap dirty) => rings.MoveTo(dirty);

    /// <summary>Does nothing: what was taken out of a ring is rearmed before it is told. Rings can't be reset in pieces.</summary>
    /// <param name="page">Any.</param>
    /// <param name="count">Any.</param>
    public void Rearm(ulong page, ulong count)
    {
        // See above.
    }

    /// <inheritdoc/>
    public void Dispose() => rings.Forget();
}
