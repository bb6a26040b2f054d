using Pageferry.Memory;
using Pageferry.Migration;

namespace Pageferry.Bench;

/// <summary>What is moved in one run of the comparison, and how; the same for both.</summary>
internal sealed record MoveSettings
{
    /// <summary>Whether the guest runs under KVM. Without, QEMU runs it with its TCG, and Pageferry has a thread that goes over its memory in pseudo-random order too.</summary>
    public static bool HasKvm { get; } = File.Exists("/dev/kvm");

    /// <summary>The guest's memory in MiB.</summary>
    public required int Mebibytes { get; init; }

    /// <summary>What the guest's memory is made of.</summary>
    public GuestBacking Backing { get; init; } = GuestBacking.Anonymous;

    /// <summary>When memory goes. QEMU has no <see cref="MigrationMode.Auto"/>: it begins by pre-copy and is told to go on by post-copy if that does not end.</summary>
    public MigrationMode Mode { get; init; } = MigrationMode.Postcopy;

    /// <summary>Whether the guest stands still all the time, so that it takes no CPU from those who move it.</summary>
    public bool IsPaused { get; init; }

    /// <summary>The connections for background pages. QEMU has more than one (multifd) only before the switchover.</summary>
    public int Connections { get; init; } = 1;

    /// <summary>Whether everything goes under TLS.</summary>
    public bool IsSecured { get; init; }

    /// <summary>How long the guest may stand still.</summary>
    public int DowntimeLimitMs { get; init; } = 300;

    /// <summary>Most bytes per second after the switchover that nobody waits for; 0 for as many as go.</summary>
    public long MaxPostcopyBandwidth { get; init; }

    /// <summary>How long to look at the guest after its switchover before the run is broken off; zero to let it end.</summary>
    public TimeSpan Window { get; init; }

    /// <summary>The memory that the guest makes dirty, in MiB per second.</summary>
    public int DirtyMebibytes { get; init; }

    /// <summary>Whether the guest touches pages in pseudo-random order.</summary>
    public bool Touches { get; init; }
}
