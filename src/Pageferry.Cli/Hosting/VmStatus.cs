namespace Pageferry.Cli;

/// <summary>The state of a guest and of the process around it, as <c>vm status --json</c> writes it.</summary>
internal sealed record VmStatus
{
    /// <summary>One of the constants of <see cref="VmState"/>.</summary>
    public required string State { get; init; }

    /// <summary>Whether the guest stands still until it is resumed, or did when it left; null where there is none that could be paused.</summary>
    public bool? Paused { get; init; }

    /// <summary>The process's id.</summary>
    public required int Pid { get; init; }

    /// <summary>Where a migration is waited for, <c>HOST:PORT</c>; null where none is.</summary>
    public string? Listen { get; init; }

    /// <summary>What runs the guest: <c>kvm</c> or <c>threads</c>; null before there is a guest.</summary>
    public string? Host { get; init; }

    /// <summary>The guest's memory in bytes.</summary>
    public ulong? MemoryBytes { get; init; }

    /// <summary>The guest's virtual CPUs.</summary>
    public int? Vcpus { get; init; }

    /// <summary>What holds the guest's memory: <c>memfd</c>, <c>memfd-2m</c> or <c>anonymous</c>.</summary>
    public string? Backing { get; init; }

    /// <summary>How userfaults are delivered: <c>queue</c> or <c>exit</c>; null where nothing answers any.</summary>
    public string? Delivery { get; init; }

    /// <summary>Passes over the memory that all virtual CPUs of a built-in guest have ended, on every host together.</summary>
    public ulong? Passes { get; init; }

    /// <summary>Passes that all virtual CPUs of a built-in guest have ended since it came to this process.</summary>
    public ulong? PassesHere { get; init; }

    /// <summary>Pages that the guest has checked, on every host together.</summary>
    public ulong? PagesChecked { get; init; }

    /// <summary>Pages that the guest found wrong, on every host together.</summary>
    public ulong? PagesWrong { get; init; }

    /// <summary>The code that the guest ended with; null while it hasn't.</summary>
    public int? ExitCode { get; init; }

    /// <summary>What went wrong, for a reader; null when nothing has.</summary>
    public string? Error { get; init; }

    /// <summary>The migration that is under way or was the last; null if there was none.</summary>
    public MigrationStatus? Migration { get; init; }
}
