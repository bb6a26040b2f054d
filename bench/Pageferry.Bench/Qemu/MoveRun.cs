using System.Diagnostics;
using System.Text.Json.Nodes;

namespace Pageferry.Bench;

/// <summary>One move of the guest, on either side of the comparison, and what was seen of it from outside and by the guest.</summary>
internal static class MoveRun
{
    /// <summary>How long the guest ticks at the source first: enough to hold its clock against the wall's.</summary>
    private const int TicksBefore = 500;

    /// <summary>Moves the guest.</summary>
    /// <param name="settings">What and how.</param>
    /// <param name="pair">Starts both sides.</param>
    /// <returns>What was measured.</returns>
    public static JsonObject Measure(MoveSettings settings, Func<IMovingPair> pair)
    {
        using IMovingPair move = pair();
        move.Source.AwaitTicks(MoveSettings.HasKvm ? TicksBefore : 1);
        if (settings.IsPaused)
        {
            move.Pause();
        }

        TimeSpan sourceCpu = move.Source.Cpu;
        TimeSpan destinationCpu = move.Destination.Cpu;
        long began = Stopwatch.GetTimestamp();
        move.Begin();
        var result = new JsonObject();
        if (settings.Window > TimeSpan.Zero)
        {
            move.Destination.AwaitTicks(1);
            Thread.Sleep(settings.Window);
            move.BreakOff();
        }
        else
        {
            move.End();
            TimeSpan took = Stopwatch.GetElapsedTime(began);
            result["took_ms"] = Math.Round(took.TotalMilliseconds, 1);
            if (settings.IsPaused)
            {
                result["mib_per_s"] = Math.Round(settings.Mebibytes / took.TotalSeconds, 1);
                result["source_cpu_ms_per_gib"] = PerGibibyte(move.Source.Cpu - sourceCpu);
                result["destination_cpu_ms_per_gib"] = PerGibibyte(move.Destination.Cpu - destinationCpu);
            }
        }

        if (!settings.IsPaused && MoveSettings.HasKvm)
        {
            move.Destination.AwaitTicks(1);
            result["stop_ms"] = Math.Round((move.Destination.FirstTick - move.Source.LastTick).TotalMilliseconds, 2);
            result["guest"] = GuestLog.Read(move.Read, move.Source).ToJson();
        }

        result["own"] = move.Report();
        return result;

        double PerGibibyte(TimeSpan cpu) => Math.Round(cpu.TotalMilliseconds * 1024 / settings.Mebibytes, 1);
    }
}
