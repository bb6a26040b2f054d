using System.Globalization;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>
/// Decides after each round of pre-copy what comes next, by what was measured. If the guest writes as before, each round leaves the same share of what it sent:
/// so many rounds are needed until what is left fits the downtime limit.
/// </summary>
/// <param name="options">What was asked for.</param>
/// <param name="roundTrip">How long a message and its answer take.</param>
internal sealed class Convergence(MigrationOptions options, TimeSpan roundTrip)
{
    /// <summary>A round that leaves more than this of what it sent does not converge.</summary>
    private const double MostLeft = 0.75;

    /// <summary>More rounds than these are not worth it where post-copy can do the rest.</summary>
    private const int MostRoundsAhead = 8;

    /// <summary>A round that sent less than this says nothing about bandwidth: it is over before the link is filled.</summary>
    private const long MeaningfulPages = 1024;

    /// <summary>QEMU's cpu-throttle-initial, cpu-throttle-increment and max-cpu-throttle.</summary>
    private const int FirstThrottle = 20;
    private const int ThrottleStep = 10;
    private const int MostThrottle = 99;

    /// <summary>What stopping, saving, loading and starting take beside the messages; an upper bound of what was measured for small guests.</summary>
    private static readonly TimeSpan s_fixed = TimeSpan.FromMilliseconds(10);

    private int _throttle;

    /// <summary>Pages per second, as last measured.</summary>
    internal double PagesPerSecond { get; private set; }

    /// <summary>Pages that the guest makes dirty per second, as last measured.</summary>
    internal double DirtyPerSecond { get; private set; }

    /// <summary>The downtime if a number of pages went while the guest stands still.</summary>
    internal TimeSpan ExpectedDowntime(long pages) =>
        (2 * roundTrip) + s_fixed + (PagesPerSecond > 0 ? TimeSpan.FromSeconds(Math.Min(pages / PagesPerSecond, TimeSpan.FromDays(1).TotalSeconds)) : TimeSpan.Zero);

    /// <summary>Decides.</summary>
    /// <param name="round">The round that has ended.</param>
    /// <param name="elapsed">Since pre-copy began.</param>
    internal Decision Decide(RoundMeasure round, TimeSpan elapsed)
    {
        double seconds = Math.Max(round.Duration.TotalSeconds, 1e-6);
        if (round.Pages >= MeaningfulPages || PagesPerSecond == 0)
        {
            PagesPerSecond = Math.Max(1, round.Pages) / seconds;
        }

        DirtyPerSecond = round.Dirty / seconds;
        TimeSpan expected = ExpectedDowntime(round.Dirty);
        string left = Text($"round {round.Round} sent {Mib(round.Pages)} at {Mib(PagesPerSecond)}/s and left {Mib(round.Dirty)}, dirtied at {Mib(DirtyPerSecond)}/s");
        if (expected <= options.DowntimeLimit)
        {
            return Decide(DecisionKind.StopAndCopy, $"{left}: stopping the guest for about {Ms(expected)}, within the limit of {Ms(options.DowntimeLimit)}");
        }

        if (options.Timeout > TimeSpan.Zero && elapsed >= options.Timeout)
        {
            return TimedOut(left, expected);
        }

        double share = round.Dirty / (double)Math.Max(1, round.Pages);
        if (options.Mode == MigrationMode.Auto && (share > MostLeft || RoundsAhead(round.Dirty, share) > MostRoundsAhead))
        {
            return Decide(
                DecisionKind.PostCopy,
                Text($"{left}: that does not converge to the {Ms(options.DowntimeLimit)} asked for (it would be {Ms(expected)}), so the guest goes now and {Mib(round.Dirty)} follow it by post-copy"));
        }

        if (options.AutoConverge && share > MostLeft && round.Round > 1)
        {
            _throttle = Math.Min(MostThrottle, _throttle == 0 ? FirstThrottle : _throttle + ThrottleStep);
            return Decide(DecisionKind.NextRound, Text($"{left}: another round, with the vCPUs throttled by {_throttle} %"));
        }

        return Decide(DecisionKind.NextRound, Text($"{left}: another round, since stopping now would take {Ms(expected)} of {Ms(options.DowntimeLimit)}"));
    }

    private Decision TimedOut(string left, TimeSpan expected) => options.OnTimeout switch
    {
        MigrationTimeoutAction.Postcopy => Decide(DecisionKind.PostCopy, $"{left}; the timeout is over: the guest goes now and the rest follows it by post-copy"),
        MigrationTimeoutAction.Ignore => Decide(DecisionKind.StopAndCopy, $"{left}; the timeout is over: stopping the guest for about {Ms(expected)}, whatever the limit of {Ms(options.DowntimeLimit)}"),
        _ => Decide(DecisionKind.Cancel, $"{left}; the timeout is over and stopping the guest would take {Ms(expected)} of the {Ms(options.DowntimeLimit)} asked for"),
    };

    private Decision Decide(DecisionKind kind, string reason) => new(kind, _throttle, reason);

    /// <summary>How many rounds more it takes until what is left fits the limit.</summary>
    private double RoundsAhead(long dirty, double share)
    {
        double fitting = PagesPerSecond * (options.DowntimeLimit - (2 * roundTrip) - s_fixed).TotalSeconds;
        return fitting < 1 ? double.PositiveInfinity : Math.Log(fitting / dirty) / Math.Log(share);
    }

    private static string Text(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);

    private static string Mib(double pages) => Text($"{pages * Page.Size / (1 << 20):0.#} MiB");

    private static string Ms(TimeSpan time) => Text($"{time.TotalMilliseconds:0} ms");
}
