namespace Pageferry.Cli;

/// <summary>How far a move is, as <c>--json</c> writes it: an object per line.</summary>
internal sealed record MoveStatus
{
    /// <summary>checking, restoring, running, done or failed; of a destination also listening.</summary>
    public required string Phase { get; init; }

    /// <summary>What happened, for a reader.</summary>
    public required string Text { get; init; }

    /// <summary>The first process's id, in its pid namespace.</summary>
    public int? Pid { get; init; }

    /// <summary>Bytes of images, without the memory that follows.</summary>
    public long? ImagesBytes { get; init; }

    /// <summary>Pages that follow the process.</summary>
    public ulong? PagesTotal { get; init; }

    /// <summary>Pages that were sent.</summary>
    public ulong? PagesSent { get; init; }

    /// <summary>From the process being frozen at the source to the news that it runs at the destination, by the source's clock.</summary>
    public double? DowntimeMs { get; init; }

    /// <summary>Of that, the dump.</summary>
    public double? DumpMs { get; init; }

    /// <summary>Of that, the images' way.</summary>
    public double? ImagesMs { get; init; }

    /// <summary>Of that, from the last image to the process standing ready, by the destination's clock.</summary>
    public double? RestoreMs { get; init; }

    /// <summary>What bringing the memory took, by the destination.</summary>
    public LazyReport? Memory { get; init; }

    /// <summary>From the process being frozen to the end of the move.</summary>
    public double? TotalMs { get; init; }
}
