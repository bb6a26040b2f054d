using System.Diagnostics;
using Pageferry.Memory;

namespace Pageferry.Migration.Tests;

/// <summary>What is decided after a round, and that it is said why.</summary>
public class ConvergenceTests
{
    private const long Gibibyte = 1 << 18;

    private static readonly TimeSpan s_second = TimeSpan.FromSeconds(1);

    [Fact]
    public void A_quiet_guest_stops_after_the_first_round()
    {
        Decision decision = Decide(new MigrationOptions(), new RoundMeasure(1, Gibibyte, s_second, 1000));
        Assert.Equal(DecisionKind.StopAndCopy, decision.Kind);
        Assert.Contains("within the limit of 300 ms", decision.Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void A_guest_that_writes_half_as_fast_converges()
    {
        var convergence = new Convergence(new MigrationOptions { DowntimeLimit = TimeSpan.FromMilliseconds(50) }, TimeSpan.FromMilliseconds(1));
        long pages = Gibibyte;
        int rounds = 0;
        Decision decision;
        do
        {
            rounds++;
            decision = convergence.Decide(new RoundMeasure(rounds, pages, pages * s_second / Gibibyte, pages / 2), s_second);
            pages /= 2;
        }
        while (decision.Kind == DecisionKind.NextRound);
        Assert.Equal(DecisionKind.StopAndCopy, decision.Kind);
        Assert.Equal(5, rounds);
    }

    [Theory]
    [InlineData(MigrationMode.Auto, (int)DecisionKind.PostCopy)]
    [InlineData(MigrationMode.Precopy, (int)DecisionKind.NextRound)]
    public void A_furious_guest_goes_by_post_copy_if_that_is_allowed(MigrationMode mode, int expected)
    {
        Decision decision = Decide(new MigrationOptions { Mode = mode }, new RoundMeasure(1, Gibibyte, s_second, Gibibyte));
        Assert.Equal((DecisionKind)expected, decision.Kind);
        Assert.Equal(0, decision.Throttle);
    }

    [Fact]
    public void Rounds_that_would_take_too_many_are_not_begun()
    {
        // Each leaves 70 %, and 1 ms fits 1/1000 of the first: that is 20 rounds.
        Decision decision = Decide(new MigrationOptions { DowntimeLimit = TimeSpan.FromMilliseconds(13) }, new RoundMeasure(1, Gibibyte, s_second, Gibibyte * 7 / 10));
        Assert.Equal(DecisionKind.PostCopy, decision.Kind);
        Assert.Contains("does not converge", decision.Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void A_guest_is_throttled_more_and_more()
    {
        var convergence = new Convergence(new MigrationOptions { Mode = MigrationMode.Precopy, AutoConverge = true }, TimeSpan.Zero);
        int[] throttles = [.. Enumerable.Range(1, 12).Select(round => convergence.Decide(new RoundMeasure(round, Gibibyte, s_second, Gibibyte), s_second).Throttle)];
        Assert.Equal([0, 20, 30, 40, 50, 60, 70, 80, 90, 99, 99, 99], throttles);
    }

    [Theory]
    [InlineData(MigrationTimeoutAction.Cancel, (int)DecisionKind.Cancel)]
    [InlineData(MigrationTimeoutAction.Ignore, (int)DecisionKind.StopAndCopy)]
    [InlineData(MigrationTimeoutAction.Postcopy, (int)DecisionKind.PostCopy)]
    public void A_timeout_ends_the_rounds(MigrationTimeoutAction action, int expected)
    {
        var options = new MigrationOptions { Mode = MigrationMode.Precopy, Timeout = s_second, OnTimeout = action };
        var convergence = new Convergence(options, TimeSpan.Zero);
        var round = new RoundMeasure(1, Gibibyte, s_second, Gibibyte);
        Assert.Equal(DecisionKind.NextRound, convergence.Decide(round, s_second / 2).Kind);
        Decision decision = convergence.Decide(round, s_second);
        Assert.Equal((DecisionKind)expected, decision.Kind);
        Assert.Contains("timeout", decision.Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void A_short_round_says_nothing_about_bandwidth()
    {
        var convergence = new Convergence(new MigrationOptions { DowntimeLimit = TimeSpan.FromMilliseconds(20) }, TimeSpan.Zero);
        _ = convergence.Decide(new RoundMeasure(1, Gibibyte, s_second, Gibibyte / 4), s_second);
        _ = convergence.Decide(new RoundMeasure(2, 10, TimeSpan.FromMilliseconds(5), 10), s_second);
        Assert.Equal(Gibibyte, convergence.PagesPerSecond);
    }

    [Theory]
    [InlineData(5000)]
    [InlineData(100_000)]
    public void Senders_together_hold_to_a_rate(long bytesPerSecond)
    {
        var limit = new BandwidthLimit(bytesPerSecond);
        long began = Stopwatch.GetTimestamp();
        Parallel.For(0, 4, _ =>
        {
            for (int i = 0; i < 10; i++)
            {
                limit.Pay(bytesPerSecond / 80);
            }
        });
        Assert.InRange(Stopwatch.GetElapsedTime(began).TotalSeconds, 0.4, 5);
    }

    [Fact]
    public void Compression_pays_on_a_slow_link_and_not_on_a_fast_one()
    {
        Assert.Equal(PageEncoding.None, Settled(sendingNanosecondsPerByte: 0.3));
        Assert.Equal(PageEncoding.Lz4, Settled(sendingNanosecondsPerByte: 8));
        Assert.Equal(PageEncoding.Zstd, Settled(sendingNanosecondsPerByte: 100));
        Assert.Equal(PageEncoding.Zstd, new CompressionChoice(MigrationCompression.Zstd).Next());
    }

    /// <summary>What is chosen in the end if LZ4 takes 1 ns per byte for half the size, and zstd 5 for a third.</summary>
    private static PageEncoding Settled(double sendingNanosecondsPerByte)
    {
        var choice = new CompressionChoice(MigrationCompression.Auto);
        var chosen = new int[3];
        for (int i = 0; i < 1000; i++)
        {
            const int Bytes = 128 << 10;
            PageEncoding encoding = choice.Next();
            int sent = encoding switch { PageEncoding.None => Bytes, PageEncoding.Lz4 => Bytes / 2, _ => Bytes / 3 };
            double packing = encoding switch { PageEncoding.None => 0, PageEncoding.Lz4 => Bytes, _ => 5 * Bytes };
            choice.Learn(encoding, Bytes, sent, packing, sent * sendingNanosecondsPerByte);
            chosen[(int)encoding]++;
        }

        int most = chosen.Max();
        Assert.True(most > 850);
        return (PageEncoding)Array.IndexOf(chosen, most);
    }

    private static Decision Decide(MigrationOptions options, RoundMeasure round) => new Convergence(options, TimeSpan.FromMilliseconds(1)).Decide(round, s_second);
}
