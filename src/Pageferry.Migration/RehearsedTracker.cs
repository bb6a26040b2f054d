using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>Tells that all pages are written, whenever it is asked: the rehearsal is to go every way once.</summary>
internal sealed class RehearsedTracker : IDirtyTracker
{
    public void Fetch(PageBitmap dirty) => dirty.AddRun(0, dirty.PageCount);

    public void Rearm(ulong page, ulong count)
    {
        // All is told anyway.
    }

    public void Dispose()
    {
        // It holds nothing.
    }
}
