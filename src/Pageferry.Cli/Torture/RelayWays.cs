namespace Pageferry.Cli;

/// <summary>Ways through the relay.</summary>
[Flags]
internal enum RelayWays
{
    /// <summary>Neither.</summary>
    None = 0,

    /// <summary>From the source to the destination.</summary>
    ToDestination = 1,

    /// <summary>From the destination to the source.</summary>
    ToSource = 2,

    /// <summary>Both.</summary>
    Both = ToDestination | ToSource,
}
