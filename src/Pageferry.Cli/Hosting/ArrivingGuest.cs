using Pageferry.Memory;
using Pageferry.Migration;

namespace Pageferry.Cli;

/// <summary>A machine as the destination of a migration in the same process sees it.</summary>
/// <param name="hosted">The machine.</param>
/// <param name="engine">Answers its userfaults.</param>
internal sealed class ArrivingGuest(HostedGuest hosted, FaultEngine engine) : IArrivingGuest
{
    /// <summary>The machine.</summary>
    internal HostedGuest Hosted => hosted;

    /// <inheritdoc/>
    public FaultEngine Engine => engine;

    /// <inheritdoc/>
    public void LoadState(ReadOnlySpan<byte> state) => hosted.Machine.LoadState(state);

    /// <inheritdoc/>
    public void Start(bool isPaused, Action executed) => hosted.Start(isPaused, executed);

    /// <inheritdoc/>
    public void Stop() => hosted.Pause.Hold();

    /// <inheritdoc/>
    public byte[] SaveState() => hosted.Machine.SaveState();

    /// <inheritdoc/>
    public void Dispose() => hosted.Dispose();
}
