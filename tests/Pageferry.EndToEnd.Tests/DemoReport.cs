using System.Text.Json;

namespace Pageferry.EndToEnd.Tests;

/// <summary>What a demo that went well has to say.</summary>
internal static class DemoReport
{
    /// <summary>Checks the object that <c>demo --json</c> wrote, and that it is all that it wrote.</summary>
    public static JsonElement Check(string output)
    {
        JsonElement report = JsonDocument.Parse(output).RootElement;
        Assert.True(report.GetProperty("ok").GetBoolean(), output);
        Assert.False(report.TryGetProperty("error", out _), output);
        ulong pages = report.GetProperty("pages_total").GetUInt64();
        Assert.Equal(report.GetProperty("memory_bytes").GetUInt64(), pages * 4096);
        Assert.Equal(0UL, report.GetProperty("pages_wrong").GetUInt64());

        // Three passes over all but the guest's own code and tables.
        Assert.True(report.GetProperty("pages_checked").GetUInt64() > pages * 2, output);
        Assert.True(report.GetProperty("passes_before").GetUInt64() >= 2, output);
        Assert.True(report.GetProperty("passes_after").GetUInt64() >= 3, output);

        ulong demand = report.GetProperty("pages_demand").GetUInt64();
        ulong background = report.GetProperty("pages_background").GetUInt64();
        ulong zero = report.GetProperty("pages_zero").GetUInt64();
        Assert.Equal(pages, demand + background + zero);
        Assert.True(report.GetProperty("bytes_sent").GetUInt64() > (demand + background) * 4096, output);

        double downtime = report.GetProperty("downtime_ms").GetDouble();
        double total = report.GetProperty("total_ms").GetDouble();
        Assert.InRange(downtime, double.Epsilon, total);

        // A small guest of huge pages may ask for all its memory before the background gets to it.
        Assert.True(background == 0 || report.GetProperty("background_mib_per_s").GetDouble() > 0, output);
        Assert.True(report.GetProperty("demand_faults").GetUInt64() > 0, output);
        double previous = 0;
        foreach (string name in (string[])["p50", "p90", "p99", "p999", "max"])
        {
            double value = report.GetProperty("fault_latency_us").GetProperty(name).GetDouble();
            Assert.True(value >= previous && value > 0, output);
            previous = value;
        }

        return report;
    }
}
