using System.Text.Json;

namespace Pageferry.EndToEnd.Tests;

/// <summary>One of the kernels that eng/kernel-matrix.sh runs, on whose KVM is that of hardware.</summary>
public sealed class KernelMatrixTests : IDisposable
{
    /// <summary>What the script ends with when it lacks a program, or the mirror that it fetches the kernel from.</summary>
    private const int Lacking = 3;

    /// <summary>An emulated machine on a busy one.</summary>
    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(15);

    private readonly TemporaryDirectory _directory = new();

    public void Dispose() => _directory.Dispose();

    [Fact]
    public async Task Nothing_fails_on_the_stock_kernel_of_trixie()
    {
        string output = _directory.Path("trixie.json");
        using PageferryProcess matrix = PageferryProcess.StartProgram(
            Path.Combine(NativeBinary.Root, "eng/kernel-matrix.sh"), "--quick", "--kernel", "trixie", "--output", output);
        await matrix.WaitForExitAsync(s_limit);
        Assert.SkipWhen(matrix.ExitCode == Lacking, matrix.Errors);
        Assert.True(matrix.ExitCode == 0, matrix.Errors + matrix.Output);

        JsonElement kernel = JsonDocument.Parse(await File.ReadAllTextAsync(output)).RootElement.GetProperty("kernels").GetProperty("trixie");
        Assert.Equal("amd-svm", kernel.GetProperty("kvm").GetString());
        Assert.Equal(0, kernel.GetProperty("failed").GetInt32());
        JsonElement[] cases = [.. kernel.GetProperty("cases").EnumerateArray()];
        Assert.Single(cases, IsOf("doctor"));

        // Huge pages are reserved there, so that no backing is left out.
        string[] backings = ["anonymous", "memfd", "memfd-2m"];
        Assert.All(backings, backing => Assert.Contains(cases, entry => IsOf("conformance")(entry) && entry.GetProperty("backing").GetString() == backing));

        JsonElement[] demos = [.. cases.Where(entry => IsOf("demo")(entry))];
        Assert.NotEmpty(demos);
        Assert.All(demos, demo =>
        {
            Assert.Equal("pass", demo.GetProperty("outcome").GetString());
            Assert.Equal(0, demo.GetProperty("pages_wrong").GetInt32());
            Assert.True(demo.GetProperty("pages_checked").GetInt64() > 0);
        });

        // The kernel can track what the guest writes, so memory went before it in rounds.
        JsonElement tracked = Assert.Single(demos, demo => demo.GetProperty("dirty_tracking").GetString() == "ring");
        Assert.True(tracked.GetProperty("pages_precopy").GetInt64() > 0, tracked.ToString());
    }

    [Theory]
    [InlineData("--kernel", "jessie")]
    [InlineData("--kernel")]
    [InlineData("--output", "")]
    [InlineData("--quick")]
    [InlineData("--tests")]
    [InlineData("--quick", "--tests", "--output", "/tmp/unused.json")]
    [InlineData("--fast")]
    public async Task A_wrong_command_line_of_the_script_is_refused_before_anything_runs(params string[] arguments)
    {
        using PageferryProcess matrix = await PageferryProcess.RunProgramAsync(Path.Combine(NativeBinary.Root, "eng/kernel-matrix.sh"), arguments);
        Assert.Equal(2, matrix.ExitCode);
        Assert.Contains(arguments[0], matrix.Errors, StringComparison.Ordinal);
        Assert.Empty(matrix.Output);
    }

    private static Predicate<JsonElement> IsOf(string kind) => entry => entry.GetProperty("kind").GetString() == kind;
}
