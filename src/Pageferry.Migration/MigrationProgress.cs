namespace Pageferry.Migration;

/// <summary>A migration at one moment, seen from one side.</summary>
/// <param name="Phase">How far it is.</param>
/// <param name="PagesTotal">The guest's pages.</param>
/// <param name="PagesDemand">Pages sent or received because the guest waited for them.</param>
/// <param name="PagesBackground">Pages sent or received before the guest touched them.</param>
/// <param name="PagesZero">Pages that are zero and went as a number.</param>
/// <param name="BytesSent">Bytes that the source has sent, or the destination received, headers included.</param>
/// <param name="Downtime">
/// Guest stopped at the source → the source learned that it had executed at the destination, by the source's clock: an upper bound.
/// Zero while unknown, and at the destination.
/// </param>
/// <param name="Total">Time since the migration began; final when it has ended.</param>
/// <param name="BackgroundMibPerSecond">Rate of the background connection from its first page to its last, or to now.</param>
public readonly record struct MigrationProgress(
    MigrationPhase Phase,
    long PagesTotal,
    long PagesDemand,
    long PagesBackground,
    long PagesZero,
    long BytesSent,
    TimeSpan Downtime,
    TimeSpan Total,
    double BackgroundMibPerSecond);
