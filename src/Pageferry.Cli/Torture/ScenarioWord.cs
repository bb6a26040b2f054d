namespace Pageferry.Cli;

/// <summary>The words for what torture does.</summary>
internal static class ScenarioWord
{
    private static readonly (TortureScenario Scenario, string Word)[] s_words =
    [
        (TortureScenario.Cut, "cut"),
        (TortureScenario.CutOne, "cut-one"),
        (TortureScenario.HalfOpen, "half-open"),
        (TortureScenario.Delay, "delay"),
        (TortureScenario.Corrupt, "corrupt"),
        (TortureScenario.StopSource, "stop-source"),
        (TortureScenario.StopDestination, "stop-destination"),
        (TortureScenario.KillDestination, "kill-destination"),
        (TortureScenario.KillEngine, "kill-engine"),
        (TortureScenario.KillArrived, "kill-arrived"),
        (TortureScenario.KillSource, "kill-source"),
        (TortureScenario.Refuse, "refuse"),
        (TortureScenario.Mixed, "mixed"),
    ];

    /// <summary>All scenarios, in the order of the table.</summary>
    internal static IEnumerable<TortureScenario> Scenarios => s_words.Select(entry => entry.Scenario);

    /// <summary>All words, in the same order.</summary>
    internal static IEnumerable<string> All => s_words.Select(entry => entry.Word);

    /// <summary>The word for a scenario.</summary>
    internal static string Of(TortureScenario scenario) => s_words.Single(entry => entry.Scenario == scenario).Word;

    /// <summary>The scenario of a word; null if there is none.</summary>
    internal static TortureScenario? Parse(string word) =>
        s_words.Where(entry => string.Equals(entry.Word, word, StringComparison.Ordinal)).Select(entry => (TortureScenario?)entry.Scenario).SingleOrDefault();
}
