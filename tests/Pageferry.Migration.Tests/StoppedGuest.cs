using Pageferry.Memory;

namespace Pageferry.Migration.Tests;

/// <summary>A guest that arrives, and tells when it is stopped for good.</summary>
internal sealed class StoppedGuest(TestGuest guest, Action stopped) : IArrivingGuest
{
    public FaultEngine Engine => guest.Engine;

    public void LoadState(ReadOnlySpan<byte> state) => guest.LoadState(state);

    public void Start(bool isPaused, Action executed) => guest.Start(isPaused, executed);

    public void Stop()
    {
        guest.Stop();
        stopped();
    }

    public byte[] SaveState() => guest.SaveState();

    public void Dispose() => guest.Dispose();
}
