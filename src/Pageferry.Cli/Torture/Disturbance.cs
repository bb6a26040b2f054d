using System.Globalization;

namespace Pageferry.Cli;

/// <summary>One thing that is done to a migration.</summary>
/// <param name="Scenario">What; never <see cref="TortureScenario.Mixed"/>.</param>
/// <param name="Way">Whose bytes are counted: one way.</param>
/// <param name="At">It is done before the byte of this number, from 0, over all connections.</param>
/// <param name="Lasts">How long; zero for what is done at once.</param>
internal sealed record Disturbance(TortureScenario Scenario, RelayWays Way, long At, TimeSpan Lasts)
{
    /// <summary>Which ways are held back or slowed down.</summary>
    public RelayWays Affects { get; init; } = RelayWays.Both;

    /// <summary>The bits of the byte that are turned over.</summary>
    public byte Mask { get; init; }

    /// <summary>How much longer each piece takes.</summary>
    public TimeSpan PieceDelay { get; init; }

    /// <inheritdoc/>
    public override string ToString()
    {
        string lasting = Lasts > TimeSpan.Zero ? string.Create(CultureInfo.InvariantCulture, $" for {Lasts.TotalMilliseconds:F0} ms") : string.Empty;
        string how = Scenario switch
        {
            TortureScenario.HalfOpen => $" {Text(Affects)}",
            TortureScenario.Delay => string.Create(CultureInfo.InvariantCulture, $" {Text(Affects)} by {PieceDelay.TotalMilliseconds:F0} ms"),
            TortureScenario.Corrupt => string.Create(CultureInfo.InvariantCulture, $" by 0x{Mask:x2}"),
            _ => string.Empty,
        };
        return string.Create(CultureInfo.InvariantCulture, $"{ScenarioWord.Of(Scenario)}{how}{lasting} at byte {At} {Text(Way)}");
    }

    private static string Text(RelayWays ways) => ways switch
    {
        RelayWays.ToDestination => "to the destination",
        RelayWays.ToSource => "to the source",
        _ => "both ways",
    };
}
