using System.Diagnostics;
using System.Text.Json.Nodes;
using Pageferry.Memory;
using Pageferry.Vmm;

namespace Pageferry.Bench;

/// <summary>
/// Not a measurement but a long run: ranges of a guest's memory are armed and disarmed at random, while its two vCPUs check every page, until there were so many userfaults.
/// </summary>
internal static class ArmingCycles
{
    private const ulong Bytes = 16 << 20;
    private const ulong MostPages = 64;

    /// <summary>More pages than this armed at a time would have the guest do nothing but fault.</summary>
    private const long MostArmed = 512;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    /// <summary>Runs with each delivery on each kind of memory of small pages.</summary>
    /// <returns>0 if no page was wrong and nobody waited for ever.</returns>
    public static int Run(long userfaults, int seed)
    {
        var result = new Comparison("arming-cycles", 1);
        result.Add("seed", JsonValue.Create(seed));
        bool isRight = true;
        foreach (FaultDelivery delivery in Enum.GetValues<FaultDelivery>())
        {
            foreach (GuestBacking backing in (GuestBacking[])[GuestBacking.Memfd, GuestBacking.Anonymous])
            {
                JsonObject run = Run(userfaults, seed, backing, delivery);
                isRight &= run["ok"]!.GetValue<bool>();
                result.Add($"{backing} {delivery}", run);
                Console.WriteLine($"arming-cycles, {backing} {delivery}: {run.ToJsonString()}");
            }
        }

        result.Store();
        return isRight ? 0 : 1;
    }

    private static JsonObject Run(long userfaults, int seed, GuestBacking backing, FaultDelivery delivery)
    {
        using KvmMachine machine = KvmMachine.Create(new MachineConfiguration(Bytes, VcpuCount: 2, backing, Seed: (ulong)seed), GuestImage.Find("random"));
        var engine = new FaultEngine(machine.Memory, delivery: delivery);
        var pages = new KeptPages(engine);
        machine.Engine = engine;
        engine.Start(pages, armed: false);
        machine.Start();
        var random = new Random(seed);
        var clock = Stopwatch.StartNew();
        var sinceProgress = Stopwatch.StartNew();
        long seen = 0;
        long armings = 0;
        long disarmings = 0;
        while (pages.Count < userfaults && machine.Progress.Failure is null && sinceProgress.Elapsed < s_patience)
        {
            if (pages.Count != seen)
            {
                seen = pages.Count;
                sinceProgress.Restart();
            }

            ulong first = (ulong)random.NextInt64((long)machine.Memory.PageCount);
            ulong count = 1 + (ulong)random.NextInt64((long)Math.Min(MostPages, machine.Memory.PageCount - first));
            if (engine.UnknownPages > MostArmed)
            {
                Thread.Sleep(1);
            }
            else if (random.Next(8) > 0)
            {
                _ = engine.Arm(first * Page.Size, count * Page.Size);
                armings++;
            }
            else
            {
                _ = engine.Disarm(first * Page.Size, count * Page.Size);
                disarmings++;
            }
        }

        // Every page is checked once more, by each vCPU in a pass that begins now.
        _ = engine.Disarm(0, Bytes);
        ulong passes = machine.Progress.Passes;
        bool goesOn = SpinWait.SpinUntil(() => machine.Progress.Passes >= passes + 2 || machine.Progress.Failure is not null, s_patience);
        MachineProgress progress = machine.Progress;
        return new JsonObject
        {
            ["ok"] = goesOn && progress is { PagesWrong: 0, Failure: null } && pages.Count >= userfaults,
            ["userfaults"] = pages.Count,
            ["armings"] = armings,
            ["disarmings"] = disarmings,
            ["passes"] = progress.Passes,
            ["pages_checked"] = progress.PagesChecked,
            ["pages_wrong"] = progress.PagesWrong,
            ["failure"] = progress.Failure,
            ["unlocated"] = engine.Statistics.Unlocated,
            ["seconds"] = Math.Round(clock.Elapsed.TotalSeconds, 1),
        };
    }
}
