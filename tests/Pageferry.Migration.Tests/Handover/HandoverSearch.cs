namespace Pageferry.Migration.Tests;

/// <summary>Goes through every world that can be reached, the nearest first, so that what it finds wrong is told in the fewest steps.</summary>
internal sealed class HandoverSearch(HandoverRules rules)
{
    private readonly HandoverMoves _moves = new(rules);
    private readonly Dictionary<HandoverWorld, int> _known = [];
    private readonly List<(HandoverWorld World, int From, WorldStep Step)> _worlds = [];

    /// <summary>Where the steps that happen by themselves lead, world after world.</summary>
    private readonly List<int> _progress = [];
    private readonly List<int> _progressEnds = [];

    /// <summary>How many different worlds were met.</summary>
    internal int Worlds => _worlds.Count;

    /// <summary>How many steps were taken.</summary>
    internal long Steps { get; private set; }

    /// <summary>In how many worlds nothing more happens by itself.</summary>
    internal int Ends { get; private set; }

    /// <summary>How often each kind of step was taken.</summary>
    internal Dictionary<StepKind, long> StepsOfKind { get; } = [];

    /// <summary>Searches.</summary>
    /// <returns>What is wrong, and the steps to it; null if nothing is.</returns>
    internal string? FindViolation()
    {
        _ = Add(HandoverWorld.Initial, from: -1, step: default);
        for (int at = 0; at < _worlds.Count; at++)
        {
            HandoverWorld world = _worlds[at].World;
            if (HandoverChecks.FindFlaw(world) is { } flaw)
            {
                return Explain(at, flaw);
            }

            int before = _progress.Count;
            foreach ((WorldStep step, HandoverWorld next) in _moves.From(world))
            {
                int index = Add(next, at, step);
                Steps++;
                StepsOfKind[step.Kind] = StepsOfKind.GetValueOrDefault(step.Kind) + 1;
                if (step.IsProgress)
                {
                    _progress.Add(index);
                }
            }

            _progressEnds.Add(_progress.Count);
            if (_progress.Count == before)
            {
                Ends++;
                if (HandoverChecks.FindUnrest(world) is { } unrest)
                {
                    return Explain(at, unrest);
                }
            }
        }

        return FindCircle() is { } circle ? Explain(circle, "From here it goes round and round without a fault.") : null;
    }

    private int Add(HandoverWorld world, int from, WorldStep step)
    {
        if (!_known.TryGetValue(world, out int index))
        {
            index = _worlds.Count;
            _known.Add(world, index);
            _worlds.Add((world, from, step));
        }

        return index;
    }

    /// <summary>Takes away, again and again, the worlds that nothing leads to by itself: what is left then lies on a circle or behind one.</summary>
    private int? FindCircle()
    {
        var leadingHere = new int[_worlds.Count];
        _progress.ForEach(to => leadingHere[to]++);
        var free = new Stack<int>(Enumerable.Range(0, _worlds.Count).Where(world => leadingHere[world] == 0));
        int taken = 0;
        while (free.TryPop(out int world))
        {
            taken++;
            for (int i = world == 0 ? 0 : _progressEnds[world - 1]; i < _progressEnds[world]; i++)
            {
                if (--leadingHere[_progress[i]] == 0)
                {
                    free.Push(_progress[i]);
                }
            }
        }

        return taken == _worlds.Count ? null : Array.FindIndex(leadingHere, count => count > 0);
    }

    private string Explain(int world, string wrong)
    {
        var steps = new Stack<string>();
        for (int at = world; _worlds[at].From >= 0; at = _worlds[at].From)
        {
            steps.Push($"{_worlds[at].Step}");
        }

        return $"{wrong}\n{string.Join('\n', steps.Select((step, i) => $"{i + 1,3}. {step}"))}\n{_worlds[world].World}";
    }
}
