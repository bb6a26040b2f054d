namespace Pageferry.Vmm.Tests.Locating;

/// <summary>What an action allocates once it has run before.</summary>
internal static class Allocations
{
    /// <summary>The least of many rounds: a collection, of another test's objects, counts what is left of the thread's allocation buffer as allocated.</summary>
    public static long Of(Action action)
    {
        long least = long.MaxValue;
        for (int round = 0; round < 1_000 && least > 0; round++)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            action();
            least = Math.Min(least, GC.GetAllocatedBytesForCurrentThread() - before);
        }

        return least;
    }
}
