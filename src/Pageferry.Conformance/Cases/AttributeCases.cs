using Pageferry.Linux;
using Pageferry.Memory;
using Pageferry.Vmm;

namespace Pageferry.Conformance;

/// <summary>L: the userfault attribute as KVM Userfault has it, on this kernel's own means, however faults are delivered.</summary>
internal static class AttributeCases
{
    private const string Series = "KVM Userfault, v3";
    private const ulong GuestBytes = 4 << 20;

    private static readonly MemoryKind[] s_backings = [MemoryKind.Anonymous, MemoryKind.Shmem, MemoryKind.Hugetlb];
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(50);

    internal static IEnumerable<ConformanceCase> All =>
    [
        .. Each("any-access", keepsContent: true, "an access to a page that was used before it was armed is a userfault, and the page keeps its content", (arena, guarded) =>
        {
            guarded.Write(1, 7);
            arena.Expect(guarded.Engine.Arm(guarded.Unit, guarded.Unit), 0UL);
            Touch touch = guarded.Read(1);
            arena.Expect(guarded.WasAsked, true);
            arena.Expect(touch.Waits, true);
            guarded.Keep(1);
            arena.Expect(touch.Through(), (byte)7);
        }),
        .. Each("any-access-neighbours", keepsContent: true, "arming a page leaves its neighbours accessible", (arena, guarded) =>
        {
            guarded.Write(0, 1);
            guarded.Write(2, 3);
            _ = guarded.Engine.Arm(guarded.Unit, guarded.Unit);
            arena.Expect(guarded.Read(0).Through(), (byte)1);
            arena.Expect(guarded.Read(2).Through(), (byte)3);
            arena.Expect(guarded.Asked, 0);
        }),
        .. Each("first-access", keepsContent: false, "with first-access semantics populated pages stay accessible and are counted", (arena, guarded) =>
        {
            guarded.Write(0, 1);
            arena.Expect(guarded.Engine.Arm(0, 3 * guarded.Unit, UserfaultSemantics.FirstAccess), guarded.PagesPerUnit);
            arena.Expect(guarded.Read(0).Through(), (byte)1);
            Touch touch = guarded.Read(1);
            arena.Expect(guarded.WasAsked, true);
            arena.Expect(touch.Waits, true);
        }),
        .. Each("resolve-with-content", keepsContent: true, "content that is placed replaces what an armed page had", (arena, guarded) =>
        {
            guarded.Write(0, 1);
            _ = guarded.Engine.Arm(0, guarded.Unit);
            Touch touch = guarded.Read(0);
            arena.Expect(guarded.WasAsked, true);
            using PageLane lane = guarded.Engine.CreateLane();
            guarded.Place(lane, 0, 9);
            arena.Expect(touch.Through(), (byte)9);
        }),
        .. Each("disarm", keepsContent: true, "disarming lets who waits go on with the content that the page has", (arena, guarded) =>
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
        .. Each("drop", keepsContent: false, "content that is dropped as its page is armed is zeros when the page is disarmed", (arena, guarded) =>
        {
            guarded.Write(0, 1);
            _ = guarded.Engine.Arm(0, guarded.Unit, content: ArmedContent.Drop);
            _ = guarded.Engine.Disarm(0, guarded.Unit);
            arena.Expect(guarded.Read(0).Through(), (byte)0);
        }),
        .. Each("arm-while-arriving", keepsContent: true, "arming a page whose content is arriving is no loss of it: the placement answers the userfaults of before", (arena, guarded) =>
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
        .. Each("arm-again", keepsContent: true, "a page that was resolved and is armed again is a userfault again", (arena, guarded) =>
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
        .. Enum.GetValues<FaultDelivery>().Select(delivery => new ConformanceCase(
            'L',
            $"vcpus-{Word(delivery)}",
            $"vCPUs whose memory is armed again and again under them find every page right; userfaults come {Way(delivery)}",
            Series,
            s_backings,
            arena => RunGuest(arena, delivery))),
    ];

    /// <summary>A case for each delivery.</summary>
    /// <param name="name">What the cases' names begin with.</param>
    /// <param name="keepsContent">Whether a page is armed that keeps its content.</param>
    /// <param name="rule">The rule.</param>
    /// <param name="run">Runs it.</param>
    private static IEnumerable<ConformanceCase> Each(string name, bool keepsContent, string rule, Action<Arena, Guarded> run) =>
        Enum.GetValues<FaultDelivery>().Select(delivery => new ConformanceCase('L', $"{name}-{Word(delivery)}", $"{rule}; userfaults come {Way(delivery)}", Series, s_backings, arena =>
        {
            const ulong Units = 3;
            CheckSupport(arena, delivery, keepsContent, Units * arena.PageBytes);
            using var guarded = new Guarded(BackingOf(arena), delivery, Units * arena.PageBytes);
            run(arena, guarded);
        }));

    private static string Word(FaultDelivery delivery) => delivery == FaultDelivery.Queue ? "queue" : "exit";

    private static string Way(FaultDelivery delivery) => delivery == FaultDelivery.Queue ? "by the queue" : "as exits";

    private static GuestBacking BackingOf(Arena arena) => arena.Kind switch
    {
        MemoryKind.Shmem => GuestBacking.Memfd,
        MemoryKind.Hugetlb => GuestBacking.Memfd2M,
        _ => GuestBacking.Anonymous,
    };

    /// <summary>Looks whether this machine has what the attribute takes. What has it all and fails nevertheless has failed.</summary>
    /// <exception cref="CaseUnsupportedException">It hasn't.</exception>
    private static void CheckSupport(Arena arena, FaultDelivery delivery, bool keepsContent, ulong bytes)
    {
        UserfaultfdProbe probe = Userfaultfd.Probe();
        bool isByProtection = delivery == FaultDelivery.Exit && arena.IsShared && probe.Failure is { Errno: Errno.EPERM or Errno.EACCES or Errno.ENOSYS };
        if (!isByProtection)
        {
            UserfaultfdFeatures delivers = delivery == FaultDelivery.Exit ? UserfaultfdFeatures.Sigbus : UserfaultfdFeatures.None;
            UserfaultfdFeatures keeps = keepsContent && !arena.IsShared ? UserfaultfdFeatures.Move : UserfaultfdFeatures.None;
            arena.Open(arena.MissingFeature | arena.MinorFeature | UserfaultfdFeatures.EventRemove | delivers | keeps).Dispose();
        }

        // Huge pages have to be reserved.
        (MappedRegion region, MemoryFile? file) = arena.Map(bytes / arena.PageBytes);
        region.Dispose();
        file?.Dispose();
    }

    private static void RunGuest(Arena arena, FaultDelivery delivery)
    {
        CheckSupport(arena, delivery, keepsContent: true, GuestBytes);
        CheckKvm();
        KvmMachine machine;
        try
        {
            machine = KvmMachine.Create(new MachineConfiguration(GuestBytes, VcpuCount: 2, BackingOf(arena)), GuestImage.Find("stamp"));
        }
        catch (NotSupportedException lacking)
        {
            throw new CaseUnsupportedException(lacking.Message);
        }

        using (machine)
        {
            machine.Engine = new FaultEngine(machine.Memory, delivery: delivery);
            var pages = new KeptPages(machine.Engine);
            machine.Engine.Start(pages, armed: false);
            machine.Start();
            for (int round = 0; round < 4; round++)
            {
                // The pass that is under way may be past what is armed; the one after it is not.
                ulong passes = machine.Progress.Passes + 2;
                arena.Expect(SpinWait.SpinUntil(() => machine.Progress.Passes >= passes || machine.Progress.Ended, s_patience), true, "two passes");
                arena.Expect(machine.Progress.Failure, null);
                _ = machine.Engine.Arm(0, GuestBytes);
            }

            arena.Expect(machine.Progress.PagesWrong, 0UL);
            arena.Expect(pages.Count > 100, true, "userfaults");
        }
    }

    /// <summary>Looks whether this process may use KVM.</summary>
    private static void CheckKvm()
    {
        int fd = Interop.Open("/dev/kvm", Interop.O_RDWR | Interop.O_CLOEXEC);
        if (fd < 0)
        {
            throw new CaseUnsupportedException(LinuxException.FromLastError("open /dev/kvm").Message);
        }

        _ = Interop.Close(fd);
    }
}
