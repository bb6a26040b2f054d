namespace Pageferry.Migration;

/// <summary>What happens when pre-copy has taken as long as it may.</summary>
public enum MigrationTimeoutAction
{
    /// <summary>The migration ends, and the guest goes on at the source.</summary>
    Cancel,

    /// <summary>The guest is moved, with whatever downtime what is left takes.</summary>
    Ignore,

    /// <summary>The guest is moved, and what is left goes after it.</summary>
    Postcopy,
}
