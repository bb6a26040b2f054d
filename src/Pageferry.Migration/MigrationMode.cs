namespace Pageferry.Migration;

/// <summary>When the guest's memory goes.</summary>
public enum MigrationMode
{
    /// <summary>Before the guest as long as that converges; what is left then goes after it.</summary>
    Auto,

    /// <summary>All of it before the guest.</summary>
    Precopy,

    /// <summary>All of it after the guest.</summary>
    Postcopy,
}
