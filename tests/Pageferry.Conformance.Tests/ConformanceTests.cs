using Pageferry.Testing;

namespace Pageferry.Conformance.Tests;

[Collection(CaseTests.Cases)]
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
    public void A_case_that_documents_a_surprise_says_so_in_its_name() => Assert.All(ConformanceSuite.Cases, rule =>
        Assert.False(rule.Rule.Contains("surprise", StringComparison.OrdinalIgnoreCase), $"{rule.Name}: its name says it, not its rule"));

    [Fact]
    public void Every_case_of_the_kernels_own_tests_has_its_case()
    {
        string[] selftests =
        [
            "UFFDIO_API", "register-ioctls", "zeropage", "move", "move-pmd", "move-pmd-split", "wp-fork", "wp-fork-with-event", "wp-fork-pin", "wp-fork-pin-with-event",
            "wp-unpopulated", "minor", "minor-wp", "minor-collapse", "sigbus", "sigbus-wp", "events", "events-wp", "poison", "mmap-changing",
        ];
        Assert.Empty(selftests.Select(test => $"uffd-unit-tests: {test}").Except(ConformanceSuite.Cases.Select(rule => rule.Source), StringComparer.Ordinal));
        Assert.Contains(ConformanceSuite.Cases, rule => rule.Source == "uffd-stress");
    }
}
