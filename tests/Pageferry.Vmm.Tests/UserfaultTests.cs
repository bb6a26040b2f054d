using System.Runtime.InteropServices;
using Microsoft.Extensions.Logging;
using Pageferry.Kvm;
using Pageferry.Memory;

namespace Pageferry.Vmm.Tests;

/// <summary>Guests that check their own memory while ranges of it are armed and disarmed under them.</summary>
public class UserfaultTests(HugePages hugePages) : IClassFixture<HugePages>
{
    private const ulong Size = 16UL << 20;

    /// <summary>Where <c>pvclock_vcpu_time_info</c> has its tsc_timestamp and <c>kvm_steal_time</c> its version: neither is 0 once KVM has written there.</summary>
    private const int Written = 8;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    /// <summary>xor eax, eax; mov edx, <see cref="GuestPort.Report"/>; again: out dx, eax; jmp again.</summary>
    private static readonly byte[] s_reports = [0x31, 0xC0, 0xBA, (byte)GuestPort.Report, 0, 0, 0, 0xEF, 0xEB, 0xFD];

    /// <summary>mov eax, 0x480000, where there is no memory; pcmpeqd xmm0, [rax]: one that KVM's emulator does not know.</summary>
    private static readonly byte[] s_vectorCompare = [0xB8, 0, 0, 0x48, 0, 0x66, 0x0F, 0x76, 0x00, 0xF4];

    /// <summary>Where a page ends that instructions access together with the next.</summary>
    private const uint Border = 3 << 20;

    /// <summary>mov esi, <see cref="Border"/> - 2; mov edx, <see cref="GuestPort.Exit"/>; outsd: KVM's emulator reads memory.</summary>
    private static readonly byte[] s_putsAcross = [0xBE, 0xFE, 0xFF, 0x2F, 0, 0xBA, (byte)GuestPort.Exit, 0, 0, 0, 0x6F, 0xEB, 0xFE];

    /// <summary>mov edi, <see cref="Border"/> - 2; mov edx, 0x77, a port of nobody; insd: KVM's emulator writes memory; mov eax, [rdi - 4]; mov edx, <see cref="GuestPort.Exit"/>; out dx, eax.</summary>
    private static readonly byte[] s_getsAcross =
        [0xBF, 0xFE, 0xFF, 0x2F, 0, 0xBA, 0x77, 0, 0, 0, 0x6D, 0x8B, 0x47, 0xFC, 0xBA, (byte)GuestPort.Exit, 0, 0, 0, 0xEF, 0xEB, 0xFE];

    /// <summary>Behind mov ecx, MSR: mov eax, <see cref="Border"/> + 1; xor edx, edx; wrmsr; and then <see cref="s_reports"/>.</summary>
    private static readonly byte[] s_sharesPage = [0xB8, 0x01, 0, 0x30, 0, 0x31, 0xD2, 0x0F, 0x30, .. s_reports];

    /// <summary>ud2.</summary>
    private static readonly byte[] s_invalid = [0x0F, 0x0B];

    public static TheoryData<bool, bool, bool> Sides => new MatrixTheoryData<bool, bool, bool>([false, true], [false, true], [false, true]);

    public static TheoryData<GuestBacking, FaultDelivery, GuestPrivilege> Combinations => new MatrixTheoryData<GuestBacking, FaultDelivery, GuestPrivilege>(
        [.. Enum.GetValues<GuestBacking>().Except([GuestBacking.GuestMemfd])], Enum.GetValues<FaultDelivery>(), Enum.GetValues<GuestPrivilege>());

    [NeedsKvm]
    [Theory]
    [MemberData(nameof(Combinations))]
    public void A_guest_whose_memory_is_armed_again_and_again_finds_every_page_right(GuestBacking backing, FaultDelivery delivery, GuestPrivilege privilege)
    {
        _ = hugePages;
        Assert.SkipUnless(File.Exists("/dev/kvm"), "there is no /dev/kvm");
        using KvmMachine machine = KvmMachine.Create(
            new MachineConfiguration(privilege == GuestPrivilege.User ? Size : 4 << 20, 2, backing, privilege), GuestImage.Find("random"));
        KeptPages pages = Answer(machine, delivery);
        machine.Start();
        ulong unit = machine.Memory.FaultSize;
        var random = new Random(5);
        for (int i = 0; i < 100; i++)
        {
            ulong units = machine.Memory.Size / unit;
            ulong first = (ulong)random.NextInt64((long)units);
            ulong count = 1 + (ulong)random.NextInt64((long)Math.Min(units - first, 32));
            if (random.Next(4) > 0)
            {
                _ = machine.Engine!.Arm(first * unit, count * unit);
            }
            else
            {
                _ = machine.Engine!.Disarm(first * unit, count * unit);
            }

            Thread.Sleep(random.Next(10));
            Assert.Null(machine.Progress.Failure);
        }

        // A pass that begins now meets what is still armed.
        ulong passes = machine.Progress.Passes;
        Assert.True(SpinWait.SpinUntil(() => machine.Progress.Passes >= passes + 2 || machine.Progress.Ended, s_patience), machine.Progress.ToString());
        Assert.Equal(0UL, machine.Progress.PagesWrong);
        Assert.Null(machine.Progress.Failure);
        Assert.True(pages.Count > 50, $"{pages.Count} userfaults");
        Assert.Equal(0, machine.Engine!.Statistics.Unlocated);
    }

    [NeedsKvm]
    [Theory]
    [InlineData(GuestBacking.Memfd)]
    [InlineData(GuestBacking.Anonymous)]
    public void A_fault_that_is_not_located_is_taken_by_the_queue_and_logged_once(GuestBacking backing)
    {
        Assert.SkipUnless(File.Exists("/dev/kvm"), "there is no /dev/kvm");
        var log = new Lines();
        using KvmMachine machine = KvmMachine.Create(new MachineConfiguration(4 << 20, 2, backing), GuestImage.Find("stamp"));
        machine.MostCandidates = 0;
        machine.Start();
        Assert.True(SpinWait.SpinUntil(() => machine.Progress.Passes >= 2, s_patience));
        machine.Pause();
        KeptPages pages = Answer(machine, FaultDelivery.Exit, log);
        machine.Resume();
        for (ulong page = 512; page < 1024; page += 16)
        {
            _ = machine.Engine!.Arm(page * Page.Size, Page.Size);
        }

        // Each vCPU owns a part of the pages, and one may be passes ahead of the other.
        Assert.True(SpinWait.SpinUntil(() => pages.Count == 32 || machine.Progress.Ended, s_patience), $"{pages.Count} userfaults, {machine.Progress}");
        Assert.Null(machine.Progress.Failure);
        Assert.Equal(0UL, machine.Progress.PagesWrong);
        Assert.InRange(machine.Engine!.Statistics.Unlocated, 1, 1000);
        Assert.NotEmpty(log.All);
        Assert.Equal(log.All.Count, log.All.Distinct(StringComparer.Ordinal).Count());
        Assert.All(log.All, line => Assert.Contains("RIP", line, StringComparison.Ordinal));
    }

    [NeedsKvm]
    [Fact]
    public void An_instruction_whose_page_goes_while_kvm_emulates_it_is_a_fault_and_no_invalid_opcode()
    {
        Assert.SkipUnless(File.Exists("/dev/kvm"), "there is no /dev/kvm");

        // Where KVM emulates OUT, it fetches the instruction after the processor has: the page may be hidden in between.
        using KvmMachine machine = KvmMachine.Create(new MachineConfiguration(4 << 20), GuestImage.Flat("reports", s_reports));
        KeptPages pages = Answer(machine, FaultDelivery.Exit);
        machine.Start();
        for (int i = 1; i <= 5000; i++)
        {
            _ = machine.Engine!.Arm(BootLayout.GuestBase, Page.Size);
            Assert.True(SpinWait.SpinUntil(() => pages.Count >= i || machine.Progress.Ended, s_patience), $"{pages.Count} userfaults");
            Assert.True(machine.Progress.Failure is null, machine.Progress.Failure);
        }
    }

    [NeedsKvm]
    [Fact]
    public void An_instruction_that_kvm_can_not_emulate_ends_the_same_with_either_delivery()
    {
        Assert.SkipUnless(File.Exists("/dev/kvm"), "there is no /dev/kvm");
        string[] ends =
        [
            .. Enum.GetValues<FaultDelivery>().Select(delivery =>
            {
                // The page tables map more than there is memory, by 2 MiB pages.
                using KvmMachine machine = KvmMachine.Create(new MachineConfiguration((4 << 20) + Page.Size), GuestImage.Flat("vector", s_vectorCompare));
                _ = Answer(machine, delivery);
                machine.Start();
                Assert.True(SpinWait.SpinUntil(() => machine.Progress.Ended, s_patience));
                return machine.Progress.Failure!;
            }),
        ];
        Assert.All(ends, end => Assert.Equal(ends[0], end));

        // Stock KVM has the guest deal with it; a software KVM may give up.
        Assert.Matches("met exception 6|InternalError", ends[0]);
    }

    [NeedsKvm]
    [Fact]
    public void An_exception_reaches_its_handler_where_the_stack_it_comes_on_would_be_armed()
    {
        Assert.SkipUnless(File.Exists("/dev/kvm"), "there is no /dev/kvm");
        using KvmMachine machine = KvmMachine.Create(new MachineConfiguration(4 << 20), GuestImage.Flat("invalid", s_invalid));
        _ = Answer(machine, FaultDelivery.Exit);
        _ = machine.Engine!.Arm(0, machine.Memory.Size);
        machine.Start();
        Assert.True(SpinWait.SpinUntil(() => machine.Progress.Ended, s_patience));
        Assert.StartsWith("vCPU 0 met exception 6 (invalid opcode)", machine.Progress.Failure, StringComparison.Ordinal);
    }

    [NeedsKvm]
    [Theory]
    [InlineData(FaultDelivery.Queue)]
    [InlineData(FaultDelivery.Exit)]
    public void A_guest_goes_on_with_one_engine_after_another(FaultDelivery delivery)
    {
        Assert.SkipUnless(File.Exists("/dev/kvm"), "there is no /dev/kvm");
        using KvmMachine machine = KvmMachine.Create(new MachineConfiguration(4 << 20, 2), GuestImage.Find("random"));
        machine.Start();
        for (int round = 0; round < 3; round++)
        {
            machine.Pause();
            KeptPages pages = Answer(machine, delivery);
            machine.Resume();
            _ = machine.Engine!.Arm(0, machine.Memory.Size);

            // The pass that is under way may have been past what was armed; the next ones are not.
            ulong passes = machine.Progress.Passes;
            Assert.True(SpinWait.SpinUntil(() => machine.Progress.Passes >= passes + 2 || machine.Progress.Ended, s_patience));
            Assert.True(pages.Count > 100, $"{pages.Count} userfaults");
            _ = machine.Engine.Arm(0, machine.Memory.Size);

            // What is armed is given back, vCPUs in the midst of faults or not.
            machine.Pause();
            FaultEngine ended = machine.Engine;
            ended.Stop();
            machine.Memory.Unregister();
            machine.Engine = null;
            ended.Dispose();
            machine.Resume();
            passes = machine.Progress.Passes;
            Assert.True(SpinWait.SpinUntil(() => machine.Progress.Passes >= passes + 2 || machine.Progress.Ended, s_patience));
            Assert.Null(machine.Progress.Failure);
            Assert.Equal(0UL, machine.Progress.PagesWrong);
        }
    }

    [NeedsKvm]
    [Theory]
    [InlineData(UserfaultSemantics.AnyAccess)]
    [InlineData(UserfaultSemantics.FirstAccess)]
    public void Without_userfaultfd_a_guest_is_stopped_by_protection_and_its_page_tables_are_not(UserfaultSemantics semantics)
    {
        Assert.SkipUnless(File.Exists("/dev/kvm"), "there is no /dev/kvm");
        Assert.SkipUnless(File.ReadAllText("/proc/sys/vm/unprivileged_userfaultfd").Trim() is "0", "every user may use userfaultfd here");
        using KvmMachine machine = KvmMachine.Create(new MachineConfiguration(8 << 20, 2), GuestImage.Find("random"));
        var engine = new FaultEngine(machine.Memory, delivery: FaultDelivery.Exit);
        var pages = new KeptPages(engine);
        machine.Engine = engine;
        WithoutPrivilege(() => engine.Start(pages, armed: false));
        Assert.False(engine.RunByQueue("nothing", static _ => { }), "there is a userfaultfd");

        // Not only below: a guest that is faster than this thread has touched all its memory by then.
        _ = engine.Arm(0, machine.Memory.Size, semantics);
        machine.Start();
        var random = new Random(3);
        for (int i = 0; i < 50; i++)
        {
            _ = engine.Arm(0, machine.Memory.Size, semantics);
            Thread.Sleep(random.Next(10));
            Assert.Null(machine.Progress.Failure);
        }

        ulong passes = machine.Progress.Passes;
        Assert.True(SpinWait.SpinUntil(() => machine.Progress.Passes >= passes + 2 || machine.Progress.Ended, s_patience), machine.Progress.ToString());
        Assert.Null(machine.Progress.Failure);
        Assert.Equal(0UL, machine.Progress.PagesWrong);
        Assert.True(pages.Count > 50, $"{pages.Count} userfaults");
    }

    [NeedsKvm]
    [Fact]
    public void A_guest_runs_on_a_guest_memfd_and_its_userfaults_are_the_kernels_to_give()
    {
        using (var kvm = Kvm.Kvm.Open())
        {
            Assert.SkipUnless(
                ((GuestMemfdFlags)kvm.CheckExtension(KvmCapability.GuestMemfdFlags)).HasFlag(GuestMemfdFlags.Mmap | GuestMemfdFlags.InitShared), "no guest_memfd can be mapped here");
        }

        using KvmMachine machine = KvmMachine.Create(new MachineConfiguration(4 << 20, 2, GuestBacking.GuestMemfd), GuestImage.Find("stamp"));
        machine.Start();
        Assert.True(SpinWait.SpinUntil(() => machine.Progress.Passes >= 3, s_patience));
        machine.Pause();
        var refusal = Record.Exception(() => Answer(machine, FaultDelivery.Queue)) as Linux.LinuxException;
        if (refusal is null)
        {
            _ = machine.Engine!.Arm(0, machine.Memory.Size);
        }
        else
        {
            Assert.Equal(Linux.Errno.EINVAL, refusal.Errno);
            Assert.Contains("lacks userfaultfd on guest_memfd", refusal.Message, StringComparison.Ordinal);
            Assert.False(machine.Memory.IsRegistered);
        }

        machine.Resume();
        ulong passes = machine.Progress.Passes;
        Assert.True(SpinWait.SpinUntil(() => machine.Progress.Passes >= passes + 2, s_patience));
        Assert.Equal(0UL, machine.Progress.PagesWrong);
    }

    [NeedsKvm]
    [Fact]
    public void What_kvm_accesses_itself_is_never_armed()
    {
        Assert.SkipUnless(File.Exists("/dev/kvm"), "there is no /dev/kvm");
        using KvmMachine machine = KvmMachine.Create(new MachineConfiguration(4 << 20), GuestImage.Find("stamp"));
        _ = Answer(machine, FaultDelivery.Exit);
        machine.Start();
        Assert.True(SpinWait.SpinUntil(() => machine.Progress.Passes >= 1, s_patience));

        // At least the page tables of a KVM that walks them itself.
        ulong exempt = machine.Engine!.Arm(0, 4 << 20);
        Assert.Equal(Kvm.Kvm.WalksGuestTables, exempt > 0);
        ulong passes = machine.Progress.Passes;
        Assert.True(SpinWait.SpinUntil(() => machine.Progress.Passes >= passes + 2, s_patience));
    }

    [NeedsKvm]
    [Theory]
    [InlineData(0x12)] // MSR_KVM_SYSTEM_TIME
    [InlineData(0x4B56_4D01)] // MSR_KVM_SYSTEM_TIME_NEW
    [InlineData(0x4B56_4D03)] // MSR_KVM_STEAL_TIME
    public void A_page_that_kvm_writes_for_the_guest_is_never_armed(int msr)
    {
        byte[] code = [0xB9, .. BitConverter.GetBytes(msr), .. s_sharesPage];
        using KvmMachine machine = KvmMachine.Create(new MachineConfiguration(4 << 20, Privilege: GuestPrivilege.Kernel), GuestImage.Flat("shares", code));
        machine.Start();
        Assert.True(SpinWait.SpinUntil(() => machine.Progress.Passes >= 1 || machine.Progress.Ended, s_patience), machine.Progress.ToString());
        machine.Pause();
        _ = Answer(machine, FaultDelivery.Exit);
        machine.Resume();

        // A page that was armed before the vCPU has come back is placed then.
        Assert.True(SpinWait.SpinUntil(() => machine.Engine!.Arm(Border, Page.Size) == 1, s_patience));
        Assert.Equal(0UL, machine.Engine!.Arm(Border + Page.Size, Page.Size));
        var written = new byte[sizeof(uint)];
        machine.Memory.Read(Border + Written, written);
        Assert.NotEqual(0U, BitConverter.ToUInt32(written));
        ulong passes = machine.Progress.Passes;
        Assert.True(SpinWait.SpinUntil(() => machine.Progress.Passes >= passes + 2, s_patience), machine.Progress.ToString());
    }

    [NeedsKvm]
    [Theory]
    [MemberData(nameof(Sides))]
    public void An_access_of_kvms_emulator_over_two_pages_has_the_content_of_both(bool isWrite, bool isFirstArmed, bool isSecondArmed)
    {
        using KvmMachine machine = KvmMachine.Create(new MachineConfiguration(4 << 20), GuestImage.Flat("across", isWrite ? s_getsAcross : s_putsAcross));
        machine.Memory.Write(Border - 2, [1, 2, 3, 4]);
        KeptPages pages = Answer(machine, FaultDelivery.Exit);
        ulong armed = 0;
        foreach ((ulong page, bool isArmed) in ((ulong, bool)[])[(Border - Page.Size, isFirstArmed), (Border, isSecondArmed)])
        {
            if (isArmed)
            {
                Assert.Equal(0UL, machine.Engine!.Arm(page, Page.Size));
                armed++;
            }
        }

        machine.Start();
        Assert.True(SpinWait.SpinUntil(() => machine.Progress.Ended, s_patience));
        Assert.Null(machine.Progress.Failure);

        // Where nobody answers, a port reads as ones.
        Assert.Equal(isWrite ? -1 : 0x04030201, machine.Progress.ExitCode);
        Assert.Equal(armed, (ulong)pages.Count);
        byte[] found = new byte[4];
        machine.Memory.Read(Border - 2, found);
        Assert.Equal(isWrite ? [0xFF, 0xFF, 0xFF, 0xFF] : (byte[])[1, 2, 3, 4], found);
    }

    [NeedsKvm]
    [Fact]
    public void A_paused_guest_may_be_in_the_middle_of_a_fault()
    {
        Assert.SkipUnless(File.Exists("/dev/kvm"), "there is no /dev/kvm");
        using KvmMachine machine = KvmMachine.Create(new MachineConfiguration(4 << 20, 2), GuestImage.Find("stamp"));
        var silent = new SilentSource();
        machine.Engine = new FaultEngine(machine.Memory, delivery: FaultDelivery.Exit);
        machine.Engine.Start(silent, armed: false);
        machine.Start();
        Assert.True(SpinWait.SpinUntil(() => machine.Progress.Passes >= 1, s_patience));
        _ = machine.Engine.Arm(3 << 20, 1 << 20);
        Assert.True(SpinWait.SpinUntil(() => silent.Requests > 0, s_patience));
        machine.Pause();
        _ = machine.SaveState();
        machine.Resume();
        _ = machine.Engine.Disarm(3 << 20, 1 << 20);
        ulong passes = machine.Progress.Passes;
        Assert.True(SpinWait.SpinUntil(() => machine.Progress.Passes >= passes + 2, s_patience));
        Assert.Equal(0UL, machine.Progress.PagesWrong);
    }

    /// <summary>Acts on a thread that is nobody's: raw, the system call changes the user of its own thread only.</summary>
    private static void WithoutPrivilege(Action act)
    {
        const long SetResUid = 117;
        const long Nobody = 65534;
        Exception? failure = null;
        var thread = new Thread(() =>
        {
            failure = SystemCall(SetResUid, -1, Nobody, -1) == 0 ? Record.Exception(act) : new InvalidOperationException("Only root can become nobody.");
        });
        thread.Start();
        thread.Join();
        Assert.Null(failure);
    }

    [DllImport("libc", EntryPoint = "syscall")]
    private static extern long SystemCall(long number, long real, long effective, long saved);

    private static KeptPages Answer(KvmMachine machine, FaultDelivery delivery, ILogger? logger = null)
    {
        var engine = new FaultEngine(machine.Memory, logger, delivery);
        var pages = new KeptPages(engine);
        machine.Engine = engine;
        engine.Start(pages, armed: false);
        return pages;
    }

    private sealed class SilentSource : IPageSource
    {
        private int _requests;

        public int Requests => Volatile.Read(ref _requests);

        public void Request(ReadOnlySpan<ulong> pages) => Interlocked.Add(ref _requests, pages.Length);
    }

    private sealed class Lines : ILogger
    {
        private readonly List<string> _lines = [];

        public IReadOnlyList<string> All
        {
            get
            {
                lock (_lines)
                {
                    return [.. _lines];
                }
            }
        }

        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
        {
            lock (_lines)
            {
                _lines.Add(formatter(state, exception));
            }
        }
    }
}
