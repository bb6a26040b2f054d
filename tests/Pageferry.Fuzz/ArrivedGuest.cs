using Pageferry.Memory;
using Pageferry.Migration;

namespace Pageferry.Fuzz;

/// <summary>A guest that takes any state, says at once that it has executed, and touches nothing.</summary>
internal sealed class ArrivedGuest : IArrivingGuest
{
    private readonly GuestMemory _memory = GuestMemory.Create(FuzzTargets.Pages * Page.Size);
    private int _starts;
    private int _disposals;

    public FaultEngine Engine => field ??= new FaultEngine(_memory);

    /// <summary>How often it was let run.</summary>
    internal int Starts => Volatile.Read(ref _starts);

    public void LoadState(ReadOnlySpan<byte> state)
    {
        // It has none.
    }

    public void Start(bool isPaused, Action executed)
    {
        _ = Interlocked.Increment(ref _starts);
        executed();
    }

    public void Stop()
    {
        // Nothing runs.
    }

    public byte[] SaveState() => [];

    public void Dispose()
    {
        if (Interlocked.Exchange(ref _disposals, 1) == 0)
        {
            Engine.Dispose();
            _memory.Dispose();
        }
    }
}
