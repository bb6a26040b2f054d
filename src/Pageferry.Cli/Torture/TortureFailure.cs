namespace Pageferry.Cli;

/// <summary>A run that found what must not be. docs/cli.md explains each field.</summary>
/// <param name="Seed">What the run followed from.</param>
/// <param name="Scenario">Its scenario's word.</param>
/// <param name="Error">What was found.</param>
/// <param name="Guest">The guest and how it was to move.</param>
/// <param name="Plan">What was to be done.</param>
/// <param name="Events">What happened, and when.</param>
/// <param name="Repeat">The command that does the same again.</param>
internal sealed record TortureFailure(int Seed, string Scenario, string Error, string Guest, IReadOnlyList<string> Plan, IReadOnlyList<string> Events, string Repeat)
{
    /// <summary>Describes a run.</summary>
    /// <param name="result">What came of it.</param>
    /// <param name="options">What the user asked for.</param>
    internal static TortureFailure Of(TortureResult result, TortureOptions options)
    {
        TorturePlan plan = result.Plan;
        string limit = plan.MaxPostcopyBandwidth is { } bytes ? $", {MemorySize.Format((ulong)bytes)}/s after the switchover" : string.Empty;
        string mode = options.Mode is TortureOptions.AnyMode ? string.Empty : $" --mode {options.Mode}";
        return new TortureFailure(
            plan.Seed,
            ScenarioWord.Of(plan.Scenario),
            result.Error ?? string.Empty,
            $"{plan.Guest}, {plan.Vcpus} vCPU, {options.Memory} of {plan.Backing}, {plan.Mode}{limit}",
            [.. plan.Disturbances.Select(disturbance => disturbance.ToString())],
            result.Events,
            $"pageferry torture --seed {plan.Seed} --count 1 --modes {ScenarioWord.Of(plan.Scenario)} --memory {options.Memory}{mode}");
    }
}
