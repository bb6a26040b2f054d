namespace Pageferry.Cli;

/// <summary>What one run does: all of it follows from the seed and the options, so that a run can be repeated.</summary>
internal sealed record TorturePlan
{
    /// <summary>Bytes that a source is sure not to have let go of its guest after: greetings alone are more.</summary>
    private const long LeastBeforeSwitchover = 150;

    /// <summary>Answers are few: what the destination sends of a migration is about this much.</summary>
    private const long MostAnswers = 16 << 10;

    private static readonly TortureScenario[] s_single = [.. ScenarioWord.Scenarios.Where(scenario => scenario is not (TortureScenario.KillArrived or TortureScenario.KillSource or TortureScenario.Mixed))];

    /// <summary>What it follows from.</summary>
    public required int Seed { get; init; }

    /// <summary>What is done.</summary>
    public required TortureScenario Scenario { get; init; }

    /// <summary>When memory goes: <c>auto</c>, <c>precopy</c> or <c>postcopy</c>.</summary>
    public required string Mode { get; init; }

    /// <summary>The guest's name.</summary>
    public required string Guest { get; init; }

    /// <summary>Its virtual CPUs.</summary>
    public required int Vcpus { get; init; }

    /// <summary>What holds its memory.</summary>
    public required string Backing { get; init; }

    /// <summary>Most bytes per second of background pages, so that the guest still waits for some; null for all that goes.</summary>
    public required long? MaxPostcopyBandwidth { get; init; }

    /// <summary>The disturbances.</summary>
    public required IReadOnlyList<Disturbance> Disturbances { get; init; }

    /// <summary>Whether the destination's engine has a process of its own, which can be killed.</summary>
    public bool HasSeparateEngine => Disturbances.Any(disturbance => disturbance.Scenario == TortureScenario.KillEngine);

    /// <summary>Whether a holder keeps what the source serves from, whose process is killed.</summary>
    public bool HasHolder => Scenario == TortureScenario.KillSource;

    /// <summary>Makes a plan.</summary>
    /// <param name="seed">What it follows from; the scenarios take turns with it.</param>
    /// <param name="options">What may be done, and to what.</param>
    internal static TorturePlan Of(int seed, TortureOptions options)
    {
        var random = new Random(seed);
        TortureScenario scenario = options.Scenarios[seed % options.Scenarios.Count];
        string drawn = Pick(random, "postcopy", "postcopy", "auto", "precopy");
        bool isOne = scenario is TortureScenario.KillDestination or TortureScenario.KillArrived;
        string mode = scenario is TortureScenario.KillArrived or TortureScenario.KillSource ? "postcopy" : options.Mode is TortureOptions.AnyMode ? drawn : options.Mode;
        string guest = Pick(random, "stamp", "random");
        int vcpus = random.Next(1, 3);
        string backing = Pick(random, BackingWord.Memfd, BackingWord.Anonymous);
        long? limit = Pick<long?>(random, null, (long)options.Memory.Bytes, (long)options.Memory.Bytes / 2);
        IEnumerable<TortureScenario> done = scenario == TortureScenario.Mixed
            ? Enumerable.Range(0, random.Next(2, 5)).Select(_ => Pick(random, s_single))
            : Enumerable.Repeat(scenario, isOne ? 1 : random.Next(1, 4));
        return new TorturePlan
        {
            Seed = seed,
            Scenario = scenario,
            Mode = mode,
            Guest = guest,
            Vcpus = vcpus,
            Backing = scenario == TortureScenario.KillSource ? BackingWord.Memfd : backing,
            MaxPostcopyBandwidth = limit,
            Disturbances = [.. done.Select(one => Draw(random, one, mode, (long)options.Memory.Bytes))],
        };
    }

    private static Disturbance Draw(Random random, TortureScenario scenario, string mode, long memory)
    {
        RelayWays way = scenario is TortureScenario.KillDestination or TortureScenario.KillArrived or TortureScenario.KillSource ? RelayWays.ToDestination : Pick(random, RelayWays.ToDestination, RelayWays.ToDestination, RelayWays.ToSource);
        long most = (scenario, way) switch
        {
            (TortureScenario.KillDestination, _) => mode is "postcopy" ? LeastBeforeSwitchover : memory / 4,
            (_, RelayWays.ToDestination) => memory * 3 / 4,
            _ => MostAnswers,
        };

        // One half anywhere, which is after the switchover mostly; the other as often among the first hundreds of bytes, where everything is agreed on, as among the rest.
        // An engine that is killed early leaves nothing to be killed later.
        bool isAnywhere = scenario is TortureScenario.KillArrived or TortureScenario.KillSource or TortureScenario.KillEngine
            || (scenario != TortureScenario.KillDestination && random.Next(2) == 0);
        long at = isAnywhere ? 1 + random.NextInt64(most) : (long)Math.Pow(most, random.NextDouble());
        TimeSpan lasts = TimeSpan.FromMilliseconds(scenario switch
        {
            TortureScenario.HalfOpen or TortureScenario.StopSource or TortureScenario.StopDestination => random.Next(4) == 0 ? random.Next(2000, 4000) : random.Next(50, 1000),
            TortureScenario.Delay or TortureScenario.Refuse => random.Next(50, 1500),
            _ => 0,
        });
        return new Disturbance(scenario, way, at, lasts)
        {
            Affects = scenario switch
            {
                TortureScenario.HalfOpen or TortureScenario.Delay => Pick(random, RelayWays.ToDestination, RelayWays.ToSource, RelayWays.Both),
                _ => RelayWays.Both,
            },
            Mask = scenario == TortureScenario.Corrupt ? (byte)random.Next(1, 256) : (byte)0,
            PieceDelay = scenario == TortureScenario.Delay ? TimeSpan.FromMilliseconds(random.Next(1, 20)) : TimeSpan.Zero,
        };
    }

    private static T Pick<T>(Random random, params ReadOnlySpan<T> choices) => choices[random.Next(choices.Length)];
}
