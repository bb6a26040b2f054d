namespace Pageferry.Snapshots;

/// <summary>A file can't be used: which one, where it is wrong, and why.</summary>
public sealed class SnapshotException : IOException
{
    /// <summary>Makes the exception.</summary>
    /// <param name="message">What was tried, on what, and why it failed.</param>
    public SnapshotException(string message)
        : base(message)
    {
    }

    internal SnapshotException(string file, long offset, string problem)
        : base($"Could not read {file}, which is wrong at byte {offset}: {problem}")
    {
    }
}
