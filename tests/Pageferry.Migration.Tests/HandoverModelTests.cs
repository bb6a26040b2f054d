using System.Diagnostics;

namespace Pageferry.Migration.Tests;

/// <summary>
/// Every interleaving of messages, cuts, failures, cancellings, deaths (of a destination's engine alone too; of a source whose pages another process serves then) and new beginnings, as many of each as one likes, with the product's own
/// tables: never two guests, never none that was to be kept. The search has no bound: since it counts nothing, the worlds are finite, and it ends when each was met.
/// </summary>
public class HandoverModelTests
{
    /// <summary>Fewer would mean that a part of the protocol is not gone through any more: there were 830 when this was written.</summary>
    private const int FewestWorlds = 2000;

    private static readonly HandoverRules s_rules = new();

    [Fact]
    public void No_interleaving_has_two_guests_or_loses_one()
    {
        var search = new HandoverSearch(s_rules);
        long began = Stopwatch.GetTimestamp();
        string? violation = search.FindViolation();
        TestContext.Current.TestOutputHelper?.WriteLine(
            $"Any number of faults and sessions: {search.Worlds} worlds, {search.Steps} steps, {search.Ends} ends, {Stopwatch.GetElapsedTime(began).TotalSeconds:0.0} s.");
        foreach ((StepKind kind, long count) in search.StepsOfKind.OrderBy(kind => kind.Key))
        {
            TestContext.Current.TestOutputHelper?.WriteLine($"{count,12} {kind}");
        }

        Assert.True(violation is null, violation);
        Assert.True(search.Worlds > FewestWorlds, $"Only {search.Worlds} worlds were met.");
        Assert.Equal(Enum.GetValues<StepKind>(), search.StepsOfKind.Keys.Order());
    }

    [Fact]
    public void A_source_that_goes_on_with_a_guest_it_let_go_of_is_found() =>
        AssertFinds("The source runs a guest that it has let go of.", "the source receives StateLoaded", s_rules with
        {
            Source = (stage, met) => (stage, met) == (SourceStage.LetGo, SourceEvent.Failed)
                ? (SourceStage.Owned, SourceAction.Resume)
                : SourceHandover.Step(stage, met),
        });

    [Fact]
    public void A_source_that_lets_go_with_the_switchover_is_found() =>
        AssertFinds("The source met", "sends Switchover", s_rules with
        {
            Source = (stage, met) => (stage, met) == (SourceStage.Owned, SourceEvent.Stopped)
                ? (SourceStage.LetGo, SourceAction.None)
                : SourceHandover.Step(stage, met),
        });

    [Fact]
    public void A_source_that_parts_before_start_though_it_has_let_go_is_found() =>
        AssertFinds("The destination discarded a guest that the source had let go of.", "the destination receives Error", s_rules with { PartsAfterLettingGo = true });

    [Fact]
    public void A_source_that_starts_no_guest_that_it_finds_loaded_is_found() =>
        AssertFinds("A side waits on a link for ever.", "the source comes back to the session", s_rules with
        {
            Source = (stage, met) => (stage, met) == (SourceStage.LetGo, SourceEvent.FoundLoaded)
                ? (stage, SourceAction.Serve)
                : SourceHandover.Step(stage, met),
        });

    [Fact]
    public void A_destination_that_drops_a_loaded_guest_with_its_link_is_found() =>
        AssertFinds("The destination discarded a guest that the source had let go of.", "the source receives StateLoaded", s_rules with
        {
            Destination = (stage, met) => (stage, met) == (DestinationStage.Loaded, DestinationEvent.LinkLost)
                ? (DestinationStage.Empty, DestinationAction.Discard)
                : DestinationHandover.Step(stage, met),
        });

    [Fact]
    public void A_destination_that_starts_a_guest_as_soon_as_it_is_loaded_is_found() =>
        AssertFinds("The destination runs a guest that the source has not let go of.", "the destination receives Switchover", s_rules with
        {
            Destination = (stage, met) => (stage, met) == (DestinationStage.Empty, DestinationEvent.StateLoaded)
                ? (DestinationStage.Started, DestinationAction.Run)
                : DestinationHandover.Step(stage, met),
        });

    [Fact]
    public void A_destination_that_lets_nobody_begin_anew_is_found() =>
        AssertFinds("The destination met BegunAnew", "a person begins a migration", s_rules with
        {
            Destination = (stage, met) => (stage, met) == (DestinationStage.Loaded, DestinationEvent.BegunAnew)
                ? DestinationHandover.Step(DestinationStage.Empty, met)
                : DestinationHandover.Step(stage, met),
        });

    [Fact]
    public void A_destination_that_runs_on_when_it_is_told_to_drop_the_guest_is_found() =>
        AssertFinds("Both sides run the guest.", "the destination receives Fence", s_rules with
        {
            Destination = (stage, met) => met == DestinationEvent.Fenced ? (DestinationStage.Fenced, DestinationAction.None) : DestinationHandover.Step(stage, met),
        });

    [Fact]
    public void A_source_that_takes_back_a_guest_that_was_made_a_file_is_found() =>
        AssertFinds("The source runs a guest that it has let go of.", "a person takes the guest out", s_rules with
        {
            Source = (stage, met) => met == SourceEvent.FoundExported ? (SourceStage.Owned, SourceAction.Resume) : SourceHandover.Step(stage, met),
        });

    [Fact]
    public void A_source_that_lets_go_before_the_holder_knows_is_found() =>
        AssertFinds("Nobody keeps what the guest lacks.", "the source has a holder told what StateLoaded means", s_rules with
        {
            Kept = stage => stage == SourceStage.LetGo ? KeptStage.Offered : SourceHandover.KeptAt(stage),
        });

    [Fact]
    public void A_source_that_runs_its_guest_before_the_holder_knows_is_found() =>
        AssertFinds("The source runs a guest that another process could serve.", "the source times out or fails", s_rules with
        {
            Kept = stage => stage == SourceStage.Owned ? KeptStage.LetGo : SourceHandover.KeptAt(stage),
        });

    private static void AssertFinds(string wrong, string step, HandoverRules rules)
    {
        string? violation = new HandoverSearch(rules).FindViolation();
        TestContext.Current.TestOutputHelper?.WriteLine($"{violation}");
        Assert.NotNull(violation);
        Assert.StartsWith(wrong, violation, StringComparison.Ordinal);
        Assert.Contains(step, violation, StringComparison.Ordinal);
    }
}
