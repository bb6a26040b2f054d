using System.Diagnostics;
using Pageferry.Testing;

namespace Pageferry.Memory.Tests;

/// <summary>
/// A garbage collection has to suspend every managed thread, and a managed load that waits for a page can't be suspended: the process hangs.
/// These tests show that the hazard is real in Release and that no path the library offers runs into it.
/// </summary>
public class GcHazardTests
{
    private const int HangSeconds = 6;

    private static readonly string s_program = Path.Combine(AppContext.BaseDirectory, "Pageferry.GcHazard.dll");

    [Fact]
    public void A_managed_load_of_a_missing_page_hangs_the_first_collection() => Assert.False(Survives("managed-load"));

    [Theory]
    [InlineData("host-view")]
    [InlineData("read-as-guest", "Memfd")]
    [InlineData("read-as-guest", "Anonymous")]
    [InlineData("write-as-guest", "Memfd")]
    [InlineData("write-as-guest", "Anonymous")]
    [InlineData("read", "Memfd")]
    [InlineData("read", "Anonymous")]
    [InlineData("write", "Memfd")]
    [InlineData("write", "Anonymous")]
    [InlineData("read-pages", "Memfd")]
    [InlineData("read-pages", "Anonymous")]
    [InlineData("kvm-run", "Memfd")]
    [InlineData("kvm-run", "Anonymous")]
    public void Every_path_to_guest_memory_survives_a_collection(params string[] arguments)
    {
        KvmDevice.SkipIfMissing(arguments[0] == "kvm-run" ? "kvm" : "threads");
        Assert.True(Survives(arguments));
    }

    private static bool Survives(params string[] arguments)
    {
        var start = new ProcessStartInfo("timeout", ["-s", "KILL", "60", "dotnet", s_program, .. arguments]) { UseShellExecute = false, RedirectStandardOutput = true, RedirectStandardError = true };
        using Process child = Process.Start(start)!;
        if (!child.WaitForExit(TimeSpan.FromSeconds(HangSeconds)))
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
