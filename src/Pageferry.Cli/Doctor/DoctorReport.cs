namespace Pageferry.Cli;

/// <summary>What this machine can do for Pageferry: the object that <c>doctor --json</c> writes. docs/cli.md explains each field.</summary>
internal sealed record DoctorReport
{
    /// <summary>Whether the main job can run here: moving a guest, under KVM or as threads, its userfaults by the queue or as exits.</summary>
    public required bool Ok { get; init; }

    /// <summary>The kernel's release, as <c>uname -r</c> tells it.</summary>
    public required string Kernel { get; init; }

    /// <summary>The processor's architecture: <c>x64</c> or <c>arm64</c>.</summary>
    public required string Architecture { get; init; }

    /// <summary>Processors that this process may use.</summary>
    public required int Cores { get; init; }

    /// <summary>The machine's memory in bytes.</summary>
    public required ulong MemoryBytes { get; init; }

    /// <summary>Memory that can be had without swapping, in bytes.</summary>
    public required ulong MemoryAvailableBytes { get; init; }

    /// <summary>Who asks: <c>root</c>, or the user's name.</summary>
    public required string User { get; init; }

    /// <summary>What KVM can do.</summary>
    public required KvmExamination Kvm { get; init; }

    /// <summary>What userfaultfd can do.</summary>
    public required UserfaultfdExamination Userfaultfd { get; init; }

    /// <summary>What kinds of memory a guest can be made of.</summary>
    public required MemoryExamination Memory { get; init; }

    /// <summary>What Pageferry can do here, or why not and what to do about it.</summary>
    public required IReadOnlyList<Capability> Capabilities { get; init; }
}
