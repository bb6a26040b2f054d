using Microsoft.Extensions.Logging;
using Pageferry.Linux;
using Pageferry.Memory;
using Pageferry.Migration;

namespace Pageferry.Cli;

/// <summary>A guest in another process, as the engine in this one takes it in.</summary>
internal sealed class RemoteGuest : IArrivingGuest, IGuestViewOwner
{
    private readonly EngineChannel _calls;
    private readonly GuestMemory _memory;
    private readonly Action<RemoteGuest> _started;
    private Action? _executed;

    private RemoteGuest(EngineChannel calls, GuestBacking backing, GuestViewShare share, ArrivalRecord record, bool isTakenOver, Action<RemoteGuest> started, ILogger logger)
    {
        _calls = calls;
        _started = started;
        _memory = GuestMemory.OfOwner(record.Layout.Regions, backing, share, this);
        Record = record;
        Engine = isTakenOver ? FaultEngine.TakeOver(_memory, record.States(), logger) : new FaultEngine(_memory, record.States(), logger);
    }

    /// <inheritdoc/>
    public FaultEngine Engine { get; }

    /// <inheritdoc/>
    public ArrivalRecord Record { get; }

    /// <summary>Has the other process make room for a guest.</summary>
    /// <param name="calls">Reaches that process.</param>
    /// <param name="layout">The guest.</param>
    /// <param name="started">Called before the guest is let run.</param>
    /// <param name="logger">Hears of failures.</param>
    /// <returns>The guest.</returns>
    internal static RemoteGuest Prepare(EngineChannel calls, MigrationLayout layout, Action<RemoteGuest> started, ILogger logger)
    {
        using var file = MemoryFile.Create("arrival", ArrivalRecord.BytesFor(layout));

        // As long as this process lives: page states are looked at from any thread.
        var buffer = new NativeBuffer(file);
        var record = ArrivalRecord.Begin(buffer, layout);
        EngineMessage answer = calls.Ask(new EngineMessage { What = EngineMessage.Prepare }, Timeout.InfiniteTimeSpan, out FileDescriptor[] received, file.Descriptor);
        GuestViewShare share = ShareOf(answer, received);

        // The record's own file.
        received[^1].Dispose();
        return new RemoteGuest(calls, ViewOf(answer).Backing, share, record, isTakenOver: false, started, logger);
    }

    /// <summary>Takes over a guest that another engine was taking in.</summary>
    /// <param name="calls">Reaches the process of the guest.</param>
    /// <param name="hello">What it said of the guest.</param>
    /// <param name="received">What came along.</param>
    /// <param name="started">Called before the guest is let run.</param>
    /// <param name="logger">Hears of failures.</param>
    /// <returns>The guest.</returns>
    internal static RemoteGuest TakeOver(EngineChannel calls, EngineMessage hello, FileDescriptor[] received, Action<RemoteGuest> started, ILogger logger)
    {
        GuestViewShare share = ShareOf(hello, received);
        using var file = MemoryFile.FromDescriptor(received[^1], "arrival");
        var record = ArrivalRecord.Open(new NativeBuffer(file));
        return new RemoteGuest(calls, ViewOf(hello).Backing, share, record, isTakenOver: true, started, logger);
    }

    /// <inheritdoc/>
    public void LoadState(ReadOnlySpan<byte> state)
    {
        using MemoryFile file = BytesFile.Write("machine-state", state);
        _ = _calls.Ask(new EngineMessage { What = EngineMessage.Load, Count = (ulong)state.Length }, file.Descriptor);
    }

    /// <inheritdoc/>
    public void Start(bool isPaused, Action executed)
    {
        _executed = executed;
        _started(this);
        if (_calls.Ask(new EngineMessage { What = EngineMessage.Start, IsPaused = isPaused }).HasExecuted == true)
        {
            TellExecuted();
        }
    }

    /// <inheritdoc/>
    public void Stop() => _ = _calls.Ask(new EngineMessage { What = EngineMessage.Stop });

    /// <summary>Nothing: the machine is in the process that takes the guest out, which saves it itself.</summary>
    /// <returns>No bytes.</returns>
    public byte[] SaveState() => [];

    /// <summary>The guest is known to have executed.</summary>
    internal void TellExecuted() => Interlocked.Exchange(ref _executed, null)?.Invoke();

    /// <inheritdoc/>
    public void Unmap(ulong page, ulong count) => _ = _calls.Ask(new EngineMessage { What = EngineMessage.Unmap, Page = page, Count = count });

    /// <inheritdoc/>
    public void Unregister() => _ = _calls.Ask(new EngineMessage { What = EngineMessage.Unregister });

    /// <inheritdoc/>
    public void BeginCollapse() => _ = _calls.Ask(new EngineMessage { What = EngineMessage.Collapse });

    /// <inheritdoc/>
    public void Dispose()
    {
        // First here: as long as this process has its part, the other one's is not given back.
        _memory.Dispose();
        _ = _calls.Ask(new EngineMessage { What = EngineMessage.Drop });
    }

    private static EngineView ViewOf(EngineMessage message) => message.View ?? throw new InvalidDataException($"The guest's process answered '{message.What}' without saying where the memory is.");

    private static GuestViewShare ShareOf(EngineMessage message, FileDescriptor[] received) => received.Length >= 3
        ? new GuestViewShare(ViewOf(message).Address, received[^3], received[^2])
        : throw new InvalidDataException($"The guest's process sent {received.Length} descriptors with '{message.What}'.");
}
