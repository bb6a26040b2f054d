using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>
/// Runs the fault path once on a few pages with real faults, so that its code is compiled and its types are loaded before a guest waits on it.
/// </summary>
internal sealed class Rehearsal : IPageSource, IDisposable
{
    private const ulong Pages = 4;

    private readonly FaultEngine _engine;
    private PageLane? _lane;

    private Rehearsal(FaultEngine engine) => _engine = engine;

    /// <summary>Rehearses on both kinds of memory that need nothing reserved; without permission for userfaultfd, by exits of the one that needs none.</summary>
    /// <returns>True: it was done.</returns>
    internal static bool Run(FaultDelivery delivery)
    {
        try
        {
            Run(GuestBacking.Memfd, delivery);
            if (delivery == FaultDelivery.Queue)
            {
                Run(GuestBacking.Anonymous, delivery);
            }
        }
        catch (LinuxException refusal) when (refusal.Errno is Errno.EPERM or Errno.EACCES or Errno.ENOSYS)
        {
            Run(GuestBacking.Memfd, FaultDelivery.Exit);
        }

        return true;
    }

    private static void Run(GuestBacking backing, FaultDelivery delivery)
    {
        // The order of disposal matters: the memory goes last, after the threads that touch it.
        using var memory = GuestMemory.Create(Pages * Page.Size, backing);
        using var engine = new FaultEngine(memory, delivery: delivery);
        using var rehearsal = new Rehearsal(engine);
        engine.StartCold(rehearsal);
        rehearsal.TouchAll();
    }

    /// <inheritdoc/>
    public void Request(ReadOnlySpan<ulong> pages)
    {
        foreach (ulong page in pages)
        {
            if (_lane!.Begin(page, 1, out Span<byte> buffer) > 0)
            {
                buffer.Clear();
                _lane.Complete();
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _lane?.Dispose();

    private void TouchAll()
    {
        _lane = _engine.CreateLane();
        _ = _lane.Zero(Pages - 1, 1);
        Span<byte> word = stackalloc byte[sizeof(ulong)];
        for (ulong page = 0; page < Pages; page++)
        {
            _engine.Memory.ReadAsGuest(page * Page.Size, word);
        }
    }
}
