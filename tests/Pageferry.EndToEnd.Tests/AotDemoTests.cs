namespace Pageferry.EndToEnd.Tests;

public sealed class AotDemoTests
{
    [Fact]
    public async Task The_native_binary_runs_the_demo()
    {
        string binary = await NativeBinary.PublishAsync();
        using PageferryProcess demo = await PageferryProcess.RunProgramAsync(binary, "demo", "--memory", "64M", "--json");
        Assert.True(demo.ExitCode == 0, demo.Errors + demo.Output);
        DemoReport.Check(demo.Output);
    }

    [Fact]
    public async Task The_native_binary_has_help_version_and_doctor()
    {
        string binary = await NativeBinary.PublishAsync();
        foreach (string[] arguments in (string[][])[["--help"], ["--version"], ["vm", "run", "--help"], ["doctor", "--json"]])
        {
            using PageferryProcess run = await PageferryProcess.RunProgramAsync(binary, arguments);
            Assert.Equal(0, run.ExitCode);
            Assert.NotEmpty(run.Output);
            Assert.Empty(run.Errors);
        }
    }
}
