using System.Diagnostics;
using System.Reflection;

namespace Pageferry.Kvm.Tests;

/// <summary>
/// A vCPU that waits for a page sits inside <c>KVM_RUN</c> for as long as that takes, and garbage collections have to go on meanwhile. A child process
/// tries it with a time limit, and shows that the limit is reached where the runtime takes the thread to be in managed code and can't interrupt it.
/// </summary>
[NeedsKvm]
public class GcHazardTests
{
    private const int HangSeconds = 6;
    private const int SurviveSeconds = 60;

    private static readonly string s_program = Path.Combine(AppContext.BaseDirectory, "Pageferry.GcHazard.dll");

    [Fact]
    public void Collections_end_while_a_vcpu_waits_for_a_page() => Assert.True(Survives("kvm-run-for-long", SurviveSeconds));

    [Fact]
    public void A_vcpu_that_the_runtime_can_not_stop_hangs_the_first_collection() => Assert.False(Survives("kvm-run-without-transition", HangSeconds));

    [Fact]
    public void The_child_is_optimized()
    {
        // A Debug build hides the hazard.
        DebuggableAttribute? debuggable = Assembly.LoadFrom(s_program).GetCustomAttribute<DebuggableAttribute>();
        Assert.False(debuggable?.IsJITOptimizerDisabled ?? false);
    }

    private static bool Survives(string what, int seconds)
    {
        var start = new ProcessStartInfo("timeout", ["-s", "KILL", "60", "dotnet", s_program, what]) { UseShellExecute = false, RedirectStandardOutput = true, RedirectStandardError = true };
        using Process child = Process.Start(start)!;
        if (!child.WaitForExit(TimeSpan.FromSeconds(seconds)))
        {
            child.Kill(entireProcessTree: true);
            child.WaitForExit();
            return false;
        }

        Assert.Equal(string.Empty, child.StandardError.ReadToEnd());
        Assert.Equal("survived\n", child.StandardOutput.ReadToEnd());
        return true;
    }
}
