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

    /// <summary>What holds the guest's memory: one of the constants of <see cref="BackingWord"/>.</summary>
    public string? Backing { get; init; }

    /// <summary>Huge pages that were made of small ones after the guest arrived from memory of huge pages; null where none are.</summary>
    public long? HugePagesCollapsed { get; init; }

    /// <summary>Ranges of 2 MiB that could not be collapsed, and stayed small pages; null where none are.</summary>
    public long? HugePagesLeft { get; init; }

    /// <summary>How userfaults are delivered, if there are any: <c>queue</c> or <c>exit</c>.</summary>
    public string? Delivery { get; init; }

    /// <summary>What tells the guest's writes: <c>log</c>, <c>ring</c> or <c>scan</c>; null before there is a guest.</summary>
    public string? DirtyTracking { get; init; }

    /// <summary>Pages that <c>vm arm</c> armed and that still are; null where nothing was armed.</summary>
    public ulong? ArmedPages { get; init; }

    /// <summary>Userfaults on pages that <c>vm arm</c> armed, answered; null where nothing was armed.</summary>
    public long? Userfaults { get; init; }

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

    /// <summary>The engine that takes the guest in, or took it in, in a process of its own; null where it is this one.</summary>
    public EngineStatus? Engine { get; init; }

    /// <summary>The migration that is under way or was the last; null if there was none.</summary>
    public MigrationStatus? Migration { get; init; }
}
