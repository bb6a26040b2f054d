using Pageferry.Linux;
using Pageferry.Memory;
using Pageferry.Vmm;

namespace Pageferry.Conformance;

/// <summary>L: the userfault attribute as KVM Userfault has it, on this kernel's own means, however faults are delivered.</summary>
internal static class AttributeCases
{
    private const string Series = "KVM Userfault, v3";
    private const ulong GuestBytes = 4 << 20;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(50);

    internal static IEnumerable<ConformanceCase> All =>
    [
        Each("any-access", "an access to a page that was used before it was armed is a userfault, and the page keeps its content", (arena, guarded) =>
        {
            guarded.Write(1, 7);
            arena.Expect(guarded.Engine.Arm(guarded.Unit, guarded.Unit), 0UL);
            Touch touch = guarded.Read(1);
            arena.Expect(guarded.WasAsked, true);
            arena.Expect(touch.Waits, true);
            guarded.Keep(1);
            arena.Expect(touch.Through(), (byte)7);
        }),
        Each("any-access-neighbours", "arming a page leaves its neighbours accessible", (arena, guarded) =>
        {
            guarded.Write(0, 1);
            guarded.Write(2, 3);
            _ = guarded.Engine.Arm(guarded.Unit, guarded.Unit);
            arena.Expect(guarded.Read(0).Through(), (byte)1);
            arena.Expect(guarded.Read(2).Through(), (byte)3);
            arena.Expect(guarded.Asked, 0);
        }),
        Each("first-access", "with first-access semantics populated pages stay accessible and are counted", (arena, guarded) =>
        {
            guarded.Write(0, 1);
            arena.Expect(guarded.Engine.Arm(0, 3 * guarded.Unit, UserfaultSemantics.FirstAccess), guarded.PagesPerUnit);
            arena.Expect(guarded.Read(0).Through(), (byte)1);
            Touch touch = guarded.Read(1);
            arena.Expect(guarded.WasAsked, true);
            arena.Expect(touch.Waits, true);
        }),
        Each("resolve-with-content", "content that is placed replaces what an armed page had", (arena, guarded) =>
        {
            guarded.Write(0, 1);
            _ = guarded.Engine.Arm(0, guarded.Unit);
            Touch touch = guarded.Read(0);
            arena.Expect(guarded.WasAsked, true);
            using PageLane lane = guarded.Engine.CreateLane();
            guarded.Place(lane, 0, 9);
            arena.Expect(touch.Through(), (byte)9);
        }),
        Each("disarm", "disarming lets who waits go on with the content that the page has", (arena, guarded) =>
        {
            guarded.Write(0, 1);
            _ = guarded.Engine.Arm(0, 2 * guarded.Unit);
            Touch used = guarded.Read(0);
            Touch unused = guarded.Read(1);
            arena.Expect(guarded.WasAsked, true);
            _ = guarded.Engine.Disarm(0, 2 * guarded.Unit);
            arena.Expect(used.Through(), (byte)1);
            arena.Expect(unused.Through(), (byte)0);
        }),
        Each("drop", "content that is dropped as its page is armed is zeros when the page is disarmed", (arena, guarded) =>
        {
            guarded.Write(0, 1);
            _ = guarded.Engine.Arm(0, guarded.Unit, content: ArmedContent.Drop);
            _ = guarded.Engine.Disarm(0, guarded.Unit);
            arena.Expect(guarded.Read(0).Through(), (byte)0);
        }),
        Each("arm-while-arriving", "arming a page whose content is arriving is no loss of it: the placement answers the userfaults of before", (arena, guarded) =>
        {
            _ = guarded.Engine.Arm(0, guarded.Unit);
            using PageLane lane = guarded.Engine.CreateLane();
            arena.Expect(lane.Begin(0, 1, out Span<byte> buffer), 1);
            _ = guarded.Engine.Arm(0, guarded.Unit);
            buffer.Fill(4);
            lane.Complete();
            guarded.Place(lane, 0, 4);
            arena.Expect(guarded.Read(0).Through(), (byte)4);
        }),
        Each("arm-again", "a page that was resolved and is armed again is a userfault again", (arena, guarded) =>
        {
            guarded.Write(0, 1);
            for (int i = 1; i <= 3; i++)
            {
                _ = guarded.Engine.Arm(0, guarded.Unit);
                Touch touch = guarded.Read(0);
                arena.Expect(SpinWait.SpinUntil(() => guarded.Asked == i, TimeSpan.FromSeconds(10)), true);
                guarded.Keep(0);
                arena.Expect(touch.Through(), (byte)1);
            }
        }),
        new('L', "vcpus", "vCPUs whose memory is armed again and again under them find every page right", Series, ConformanceCase.All, arena =>
        {
            foreach (FaultDelivery delivery in Enum.GetValues<FaultDelivery>())
            {
                RunGuest(arena, delivery);
            }
        }),
    ];

    /// <summary>A case that is run with each delivery.</summary>
    private static ConformanceCase Each(string name, string rule, Action<Arena, Guarded> run) => new('L', name, rule, Series, ConformanceCase.All, arena =>
    {
        foreach (FaultDelivery delivery in Enum.GetValues<FaultDelivery>())
        {
            Guarded guarded;
            try
            {
                guarded = new Guarded(arena, delivery, units: 3);
            }
            catch (LinuxException refusal)
            {
                throw new CaseUnsupportedException(refusal.Message);
            }

            using (guarded)
            {
                try
                {
                    run(arena, guarded);
                }
                catch (CaseFailedException failed)
                {
                    throw new CaseFailedException($"delivery {delivery}: {failed.Message}");
                }
                catch (LinuxException refusal) when (arena.Kind == MemoryKind.Anonymous && refusal.Errno == Errno.EINVAL)
                {
                    // Keeping the content of private memory takes UFFDIO_MOVE.
                    throw new CaseUnsupportedException(refusal.Message);
                }
            }
        }
    });

    private static void RunGuest(Arena arena, FaultDelivery delivery)
    {
        GuestBacking backing = arena.Kind switch
        {
            MemoryKind.Shmem => GuestBacking.Memfd,
            MemoryKind.Hugetlb => GuestBacking.Memfd2M,
            _ => GuestBacking.Anonymous,
        };
        KvmMachine machine;
        try
        {
            machine = KvmMachine.Create(new MachineConfiguration(GuestBytes, VcpuCount: 2, backing), GuestImage.Find("stamp"));
        }
        catch (Exception refusal) when (refusal is LinuxException or NotSupportedException)
        {
            throw new CaseUnsupportedException(refusal.Message);
        }

        using (machine)
        {
            machine.Engine = new FaultEngine(machine.Memory, delivery: delivery);
            var pages = new KeptPages(machine.Engine);
            machine.Engine.Start(pages, armed: false);
            machine.Start();
            try
            {
                for (int round = 0; round < 4; round++)
                {
                    // The pass that is under way may be past what is armed; the one after it is not.
                    ulong passes = machine.Progress.Passes + 2;
                    arena.Expect(SpinWait.SpinUntil(() => machine.Progress.Passes >= passes || machine.Progress.Ended, s_patience), true, "two passes");
                    arena.Expect(machine.Progress.Failure, null);
                    _ = machine.Engine.Arm(0, GuestBytes);
                }
            }
            catch (LinuxException refusal) when (backing == GuestBacking.Anonymous && refusal.Errno == Errno.EINVAL)
            {
                throw new CaseUnsupportedException(refusal.Message);
            }

            arena.Expect(machine.Progress.PagesWrong, 0UL);
            arena.Expect(pages.Count > 100, true, "userfaults");
        }
    }
}
