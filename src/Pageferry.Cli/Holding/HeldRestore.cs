namespace Pageferry.Cli;

/// <summary>The blob that a lazy-pages daemon leaves at a holder, as JSON. Sockets, and the userfaultfd and the record of each process, are beside it.</summary>
internal sealed record HeldRestore
{
    /// <summary>The form that this build writes and reads.</summary>
    internal const int CurrentVersion = 1;

    /// <summary>Its form.</summary>
    public required int Version { get; init; }

    /// <summary>The daemon's work directory, which says which restore it is: a daemon has one of its own.</summary>
    public required string WorkDirectory { get; init; }

    /// <summary>What <see cref="Pageferry.Criu.LazyRestore"/> writes.</summary>
    public required byte[] Record { get; init; }
}
