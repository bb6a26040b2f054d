using System.Net;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>
/// Moves a guest of a few pages within the process, so that no code of a switchover is compiled, and no type loaded, while a guest stands still.
/// </summary>
internal sealed class Rehearsal : IMigratingGuest, IArrivingGuest
{
    private const ulong Pages = 4;

    private static readonly Lazy<bool> s_done = new(Run, LazyThreadSafetyMode.ExecutionAndPublication);

    public Guid Id { get; } = Guid.NewGuid();

    public string MachineKind => nameof(Rehearsal);

    public GuestMemory Memory { get; } = GuestMemory.Create(Pages * Page.Size);

    public bool IsPaused => false;

    public FaultEngine Engine => field ??= new FaultEngine(Memory);

    /// <summary>Rehearses unless that was done before.</summary>
    internal static void Once() => _ = s_done.Value;

    public IDirtyTracker TrackDirtyPages() => new RehearsedTracker();

    public void Throttle(int percent)
    {
        // Nothing runs that could be slowed down.
    }

    public void Pause()
    {
        // Nothing runs.
    }

    public void Resume()
    {
        // As little as before.
    }

    public void Stop()
    {
        // Nor is there anything to stop.
    }

    public byte[] SaveState() => [1];

    public void LoadState(ReadOnlySpan<byte> state)
    {
        // It says nothing.
    }

    public void Start(bool isPaused, Action executed)
    {
        // A page of content on demand, then one of zeros in the background.
        Memory.ReadAsGuest(0, stackalloc byte[1]);
        executed();
    }

    public void Dispose() => Memory.Dispose();

    /// <returns>Whether it could be rehearsed: where userfaultfd is refused, only leaving is possible, and is slower the first time.</returns>
    private static bool Run()
    {
        try
        {
            // Pre-copy that ends while the guest stands still; pre-copy that ends in post-copy.
            Move(TimeSpan.FromDays(1));
            Move(TimeSpan.FromTicks(1));
            return true;
        }
        catch (Exception)
        {
            return false;
        }
    }

    private static void Move(TimeSpan downtimeLimit)
    {
        using var leaving = new Rehearsal();
        leaving.Memory.Write(0, [1]);
        leaving.Memory.Write(Page.Size, [1]);
        using var destination = new MigrationDestination(
            new IPEndPoint(IPAddress.Loopback, 0), _ => new Rehearsal(), logger: null, VersionRange.Current, security: null, insecureNetwork: false, isRehearsal: true);
        var receiving = new Thread(() => Receive(destination)) { IsBackground = true };
        receiving.Start();
        new MigrationSource(leaving, new MigrationOptions { DowntimeLimit = downtimeLimit }, isRehearsal: true).Run(destination.EndPoint);
        receiving.Join();
    }

    private static void Receive(MigrationDestination destination)
    {
        Rehearsal? arrived = null;
        try
        {
            destination.Receive(guest => arrived = (Rehearsal)guest);
        }
        catch (Exception)
        {
            // The source, or the disposal of the destination, ends the rehearsal.
        }

        arrived?.Dispose();
    }
}
