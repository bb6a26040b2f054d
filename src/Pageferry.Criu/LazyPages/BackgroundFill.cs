namespace Pageferry.Criu;

/// <summary>Which pages are fetched that nobody waits for.</summary>
public enum BackgroundFill
{
    /// <summary>None: the process gets what it touches, and the daemon stays for as long as the process.</summary>
    None,

    /// <summary>All, in the order of their addresses.</summary>
    Sequential,

    /// <summary>All: first what lies around the page that the process touched last, then in the order of addresses.</summary>
    Locality,
}
