namespace Pageferry.GcHazard;

/// <summary>Starts a garbage collection on another thread while a page is missing, and gives it time to need every thread.</summary>
internal sealed class CollectionDuringFault : IDisposable
{
    private readonly ManualResetEventSlim _wanted = new();

    public CollectionDuringFault()
    {
        var collector = new Thread(() =>
        {
            _wanted.Wait();
            GC.Collect();
        })
        {
            IsBackground = true,
        };
        collector.Start();
    }

    /// <summary>Called by the thread that is about to place the page: 300 ms pass, in which the collection begins.</summary>
    public void Begin()
    {
        _wanted.Set();
        Thread.Sleep(300);
    }

    public void Dispose() => _wanted.Dispose();
}
