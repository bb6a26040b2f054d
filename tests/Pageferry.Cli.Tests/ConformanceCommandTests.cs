using System.Text.Json;

namespace Pageferry.Cli.Tests;

public class ConformanceCommandTests
{
    [Theory]
    [InlineData("names no group. There are ABCDEFGHIJKL.", "--group", "")]
    [InlineData("'X' is not a group. There are ABCDEFGHIJKL.", "--group", "AX")]
    [InlineData("No case of the groups A is for memfd: they are for anonymous.", "--group", "A", "--backing", "memfd")]
    [InlineData("No case of the groups ai is for memfd-2m: they are for anonymous.", "--group", "ai", "--backing", "memfd-2m")]
    [InlineData("Choose one of: all, anonymous, memfd, memfd-private, memfd-2m, memfd-2m-private, guest-memfd.", "--backing", "tape")]
    public async Task A_selection_of_no_case_is_refused_with_what_there_is(string expected, params string[] arguments)
    {
        using PageferryProcess process = await PageferryProcess.RunAsync(["conformance", .. arguments]);
        Assert.Equal(ExitCode.Usage, process.ExitCode);
        Assert.Contains(expected, process.Errors, StringComparison.Ordinal);
        Assert.Empty(process.Output);
    }

    [Fact]
    public async Task A_selection_runs_its_cases_and_no_other()
    {
        using PageferryProcess process = await PageferryProcess.RunAsync("conformance", "--group", "ad", "--backing", "anonymous", "--json");
        Assert.Equal(ExitCode.Done, process.ExitCode);
        JsonElement report = JsonDocument.Parse(process.Output).RootElement;
        Assert.Equal(["A", "D"], report.GetProperty("cases").EnumerateArray().Select(entry => entry.GetProperty("group").GetString()!).Distinct(StringComparer.Ordinal), StringComparer.Ordinal);
        Assert.All(report.GetProperty("cases").EnumerateArray(), entry => Assert.Equal("anonymous", entry.GetProperty("backing").GetString()));
    }

    [Fact]
    public async Task Without_permission_the_attribute_is_tried_with_faults_as_exits()
    {
        using UnprivilegedPageferry unprivileged = UnprivilegedPageferry.OrSkip();
        using PageferryProcess process = await unprivileged.RunAsync("conformance", "--group", "L", "--backing", "memfd", "--json");
        Assert.Equal(ExitCode.Done, process.ExitCode);
        JsonElement[] cases = [.. JsonDocument.Parse(process.Output).RootElement.GetProperty("cases").EnumerateArray().Where(entry => !Name(entry).StartsWith("vcpus", StringComparison.Ordinal))];
        Assert.NotEmpty(cases);
        Assert.All(cases, entry => Assert.Equal(Name(entry).EndsWith("-exit", StringComparison.Ordinal) ? "pass" : "unsupported", entry.GetProperty("outcome").GetString()));

        static string Name(JsonElement entry) => entry.GetProperty("name").GetString()!;
    }
}
