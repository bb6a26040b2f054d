using Pageferry.Testing;

namespace Pageferry.Conformance.Tests;

public class ConformanceTests(HugePages hugePages) : IClassFixture<HugePages>
{
    public static TheoryData<string, MemoryKind> Cases
    {
        get
        {
            var data = new TheoryData<string, MemoryKind>();
            foreach (ConformanceCase rule in ConformanceSuite.Cases)
            {
                foreach (MemoryKind memory in rule.Memories)
                {
                    data.Add(rule.Name, memory);
                }
            }

            return data;
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void This_kernel_keeps_the_rule(string name, MemoryKind memory)
    {
        _ = hugePages;
        ConformanceCase rule = ConformanceSuite.Cases.Single(rule => rule.Name == name);
        CaseResult result = ConformanceSuite.Run(rule, memory);
        Assert.SkipWhen(result.Outcome == CaseOutcome.Unsupported, result.Detail ?? string.Empty);
        Assert.True(result.Outcome == CaseOutcome.Pass, $"{rule.Rule}: {result.Detail}");
    }

    [Fact]
    public void Names_are_unique_and_every_case_has_a_rule_a_source_and_a_group()
    {
        Assert.Equal(ConformanceSuite.Cases.Count, ConformanceSuite.Cases.Select(rule => rule.Name).Distinct(StringComparer.Ordinal).Count());
        Assert.All(ConformanceSuite.Cases, rule =>
        {
            Assert.NotEmpty(rule.Rule);
            Assert.NotEmpty(rule.Source);
            Assert.NotEmpty(rule.Memories);
            Assert.Contains(rule.Group, ConformanceSuite.Groups.Keys);
        });
    }

    [Fact]
    public void A_rule_that_the_kernel_breaks_fails_with_what_was_expected_and_found()
    {
        var broken = new ConformanceCase('C', "broken", "a page that is there is placed again", "nobody", [MemoryKind.Anonymous], arena =>
        {
            using Armed memory = arena.ArmMissing(1);
            memory.Place(0);
            memory.Place(0);
        });
        CaseResult result = ConformanceSuite.Run(broken, MemoryKind.Anonymous);
        Assert.Equal(CaseOutcome.Fail, result.Outcome);
        Assert.Contains("expected Done, found AlreadyPresent", result.Detail, StringComparison.Ordinal);
    }
}
