using System.Diagnostics;
using Pageferry.Linux;

namespace Pageferry.Conformance;

/// <summary>The rules of userfaults as cases that run against this kernel.</summary>
public static class ConformanceSuite
{
    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(60);

    /// <summary>The groups: a letter and what its cases are about.</summary>
    public static IReadOnlyDictionary<char, string> Groups { get; } = new SortedDictionary<char, string>
    {
        ['A'] = "the handshake",
        ['B'] = "what can be registered",
        ['C'] = "resolving a fault",
        ['D'] = "who is woken",
        ['E'] = "messages that are not faults",
        ['F'] = "making a page fault again",
        ['G'] = "shared memory with two views",
        ['H'] = "faults that are errors",
        ['I'] = "permissions",
        ['J'] = "closing and unregistering",
        ['K'] = "stress",
        ['L'] = "the userfault attribute",
    };

    /// <summary>All cases, by group.</summary>
    public static IReadOnlyList<ConformanceCase> Cases { get; } =
    [
        .. HandshakeCases.All, .. RegisterCases.All, .. ResolveCases.All, .. MoveCases.All, .. WakeCases.All, .. EventCases.All, .. RearmCases.All, .. WriteProtectCases.All,
        .. MinorCases.All, .. PoisonCases.All, .. PermissionCases.All, .. CloseCases.All, .. StressCases.All, .. AttributeCases.All,
    ];

    /// <summary>Runs a case.</summary>
    /// <param name="rule">The case.</param>
    /// <param name="memory">One of the kinds of memory that it is for.</param>
    /// <returns>What came of it. A case that doesn't end within 60 s has failed; its threads are left behind.</returns>
    public static CaseResult Run(ConformanceCase rule, MemoryKind memory)
    {
        var clock = Stopwatch.StartNew();
        CaseOutcome outcome = CaseOutcome.Fail;
        string? detail = null;
        var thread = new Thread(() => (outcome, detail) = RunHere(rule, memory)) { IsBackground = true, Name = rule.Name };
        thread.Start();
        return thread.Join(s_limit)
            ? new CaseResult(rule, memory, outcome, detail, clock.Elapsed)
            : new CaseResult(rule, memory, CaseOutcome.Fail, $"expected an end, found the case still running after {s_limit.TotalSeconds:F0} s", clock.Elapsed);
    }

    private static (CaseOutcome Outcome, string? Detail) RunHere(ConformanceCase rule, MemoryKind memory)
    {
        try
        {
            using var arena = new Arena(memory);
            rule.Run(arena);
            return (CaseOutcome.Pass, null);
        }
        catch (CaseUnsupportedException unsupported)
        {
            return (CaseOutcome.Unsupported, unsupported.Message);
        }
        catch (CaseFailedException failed)
        {
            return (CaseOutcome.Fail, failed.Message);
        }
        catch (LinuxException unexpected)
        {
            return (CaseOutcome.Fail, $"expected success, found: {unexpected.Message}");
        }
    }
}
