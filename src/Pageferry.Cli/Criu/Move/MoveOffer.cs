namespace Pageferry.Cli;

/// <summary>What a source is about to move, so that the destination can say what is in its way before anything is frozen.</summary>
internal sealed record MoveOffer
{
    /// <summary>The source's CRIU.</summary>
    public required string Criu { get; init; }

    /// <summary>The first process's id, in its pid namespace.</summary>
    public required int Pid { get; init; }

    /// <summary>The ids of all processes and threads, which have to be free.</summary>
    public required IReadOnlyList<int> Ids { get; init; }

    /// <summary>Where the processes listen, as <c>ADDRESS:PORT</c> of TCP.</summary>
    public required IReadOnlyList<string> Listening { get; init; }

    /// <summary>The files that they have open or mapped, which have to be at the destination as they are here.</summary>
    public required IReadOnlyList<MoveFile> Files { get; init; }

    /// <summary>How the processes are dumped and restored.</summary>
    public required CriuTraits Traits { get; init; }
}
