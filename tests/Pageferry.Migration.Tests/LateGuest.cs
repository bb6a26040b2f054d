using Pageferry.Memory;

namespace Pageferry.Migration.Tests;

/// <summary>A guest of which it becomes known late that it has executed.</summary>
internal sealed class LateGuest(TestGuest guest, TimeSpan late) : IArrivingGuest
{
    internal TestGuest Guest => guest;

    public FaultEngine Engine => guest.Engine;

    public void LoadState(ReadOnlySpan<byte> state) => guest.LoadState(state);

    public void Start(bool isPaused, Action executed)
    {
        guest.Start(isPaused, () => { });
        _ = Task.Delay(late).ContinueWith(_ => executed(), TaskScheduler.Default);
    }

    public void Stop() => guest.Stop();

    public byte[] SaveState() => guest.SaveState();

    public void Dispose() => guest.Dispose();
}
