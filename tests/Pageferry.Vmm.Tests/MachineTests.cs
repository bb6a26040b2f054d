using System.Diagnostics;
using CsCheck;
using Pageferry.Memory;

namespace Pageferry.Vmm.Tests;

public class MachineTests
{
    private const ulong Size = 8 << 20;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    [Theory]
    [InlineData(false, 0)]
    [InlineData(true, 1)]
    public void Every_register_goes_with_the_state(bool damaged, int code)
    {
        using IMachine first = Create(RegisterGuest.Assemble(1_000_000_000));
        first.Start();
        Thread.Sleep(100);
        first.Pause();
        Assert.False(first.Progress.Ended);
        byte[] state = first.SaveState();
        if (damaged)
        {
            // One bit of YMM or XMM 9: the guest would find it.
            Span<byte> nine = [.. Enumerable.Range(9 * 32, 16).Select(i => (byte)((i * 151) + 7))];
            int at = state.AsSpan().IndexOf(nine);
            Assert.True(at > 0, "The state holds XMM 9 as the guest set it.");
            state[at + 3] ^= 4;
        }

        GuestMemory memory = GuestMemory.Create(Size);
        first.Memory.HostView(0, (int)Size).CopyTo(memory.HostView(0, (int)Size));
        using IMachine second = KvmMachine.Create(memory, 1);
        second.LoadState(state);
        second.Start();
        Assert.True(second.Ended.Wait(s_patience));
        Assert.Null(second.Progress.Failure);
        Assert.Equal(code, second.Progress.ExitCode);
    }

    [Theory]
    [InlineData(GuestPrivilege.User, 3)]
    [InlineData(GuestPrivilege.Kernel, 0)]
    public void A_guest_starts_at_the_privilege_asked_for(GuestPrivilege privilege, int level)
    {
        // mov eax, cs; and eax, 3; out 0xF4, eax; jmp $
        using IMachine machine = Create([0x8C, 0xC8, 0x83, 0xE0, 0x03, 0xE7, 0xF4, 0xEB, 0xFE], privilege);
        machine.Start();
        Assert.True(machine.Ended.Wait(s_patience));
        Assert.Equal(level, machine.Progress.ExitCode);
    }

    [Fact]
    public void A_throttled_guest_gets_as_much_less_done_and_all_again_without()
    {
        using IMachine machine = ThreadMachine.Create(new MachineConfiguration(Size), "stamp");
        machine.Start();
        double free = PassesPerSecond(machine, 0);
        double half = PassesPerSecond(machine, 50);
        double tenth = PassesPerSecond(machine, 90);
        double again = PassesPerSecond(machine, 0);
        double full = Math.Max(free, again);
        Assert.InRange(half / full, 0.2, 0.75);
        Assert.InRange(tenth / full, 0.01, 0.3);
        Assert.InRange(again / tenth, 3, double.PositiveInfinity);
    }

    [Fact]
    public void Threads_are_no_kernel()
    {
        ArgumentException refused = Assert.Throws<ArgumentException>(() => ThreadMachine.Create(new MachineConfiguration(Size, Privilege: GuestPrivilege.Kernel), "stamp"));
        Assert.Contains("CPL 0", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void An_exception_in_the_guest_is_its_failure_by_name_and_address()
    {
        // nop; ud2
        using IMachine machine = Create([0x90, 0x0F, 0x0B]);
        machine.Start();
        Assert.True(machine.Ended.Wait(s_patience));
        Assert.Contains("exception 6 (invalid opcode)", machine.Progress.Failure, StringComparison.Ordinal);
        Assert.Contains("100001", machine.Progress.Failure, StringComparison.Ordinal);
    }

    [Trait("Needs", "gcc")]
    [Fact]
    public void A_console_line_and_an_exit_code_come_from_a_program_of_the_C_compiler()
    {
        const string Source = """
            static void out8(unsigned short port, unsigned char value) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }
            static void out32(unsigned short port, unsigned value) { __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port)); }
            static const char text[] = "hello from C\n";
            static volatile int zeroed[1000];
            static volatile int set = 40;
            struct boot_info { unsigned long magic; unsigned version, pad; unsigned long memory; unsigned index, count; };
            void _start(const struct boot_info *info)
            {
                for (const char *c = text; *c; c++)
                    out8(0xe9, *c);
                int sum = set + info->count + (info->memory == 8 << 20) + (info->magic != 0x3159525245464750);
                for (int i = 0; i < 1000; i++)
                    sum += zeroed[i];
                for (;;)
                    out32(0xf4, sum);
            }
            """;
        KvmDevice.SkipIfMissing();
        using IMachine machine = KvmMachine.Create(new MachineConfiguration(Size), GuestImage.Find(CompiledGuest.Build(Source)));
        var lines = new List<string>();
        machine.ConsoleLine += lines.Add;
        machine.Start();
        Assert.True(machine.Ended.Wait(s_patience));
        Assert.Null(machine.Progress.Failure);
        Assert.Equal(42, machine.Progress.ExitCode);
        Assert.Equal("hello from C", Assert.Single(lines));
    }

    [Fact]
    public void A_state_of_other_vcpus_or_of_another_host_is_refused()
    {
        using IMachine two = BuiltInGuestTests.Create(MachineHost.Kvm, "stamp", new MachineConfiguration(Size, 2));
        two.Start();
        two.Pause();
        byte[] state = two.SaveState();
        using IMachine one = KvmMachine.Create(GuestMemory.Create(Size), 1);
        Assert.Contains("2 vCPUs", Assert.Throws<InvalidDataException>(() => one.LoadState(state)).Message, StringComparison.Ordinal);
        using IMachine threads = ThreadMachine.Create(GuestMemory.Create(Size), 2);
        _ = Assert.Throws<InvalidDataException>(() => threads.LoadState(state));
    }

    [Theory]
    [InlineData(MachineHost.Kvm)]
    [InlineData(MachineHost.Threads)]
    public void No_bytes_of_a_state_do_harm(MachineHost host)
    {
        using IMachine machine = BuiltInGuestTests.Create(host, "stamp", new MachineConfiguration(Size));
        machine.Start();
        machine.Pause();
        byte[] state = machine.SaveState();
        Gen.Select(Gen.Int[0, state.Length - 1], Gen.Byte, Gen.Int[0, state.Length]).Sample(
            (at, value, length) =>
            {
                byte[] changed = [.. state];
                changed[at] = value;
                using IMachine target = host == MachineHost.Kvm ? KvmMachine.Create(GuestMemory.Create(Size), 1) : ThreadMachine.Create(GuestMemory.Create(Size), 1);
                return IsLoadedOrRefused(target, changed) && IsLoadedOrRefused(target, state[..length]);
            },
            iter: 100);
    }

    private static bool IsLoadedOrRefused(IMachine machine, byte[] state)
    {
        try
        {
            machine.LoadState(state);
        }
        catch (Exception refusal) when (refusal is InvalidDataException or Linux.LinuxException or NotSupportedException)
        {
            // Told, not crashed.
        }

        return true;
    }

    private static KvmMachine Create(byte[] code, GuestPrivilege privilege = GuestPrivilege.User)
    {
        KvmDevice.SkipIfMissing();
        return KvmMachine.Create(new MachineConfiguration(Size, Privilege: privilege), GuestImage.Flat("test", code));
    }

    /// <summary>How fast the guest gets on with a throttle, by enough of its time that what else the machine does is no matter.</summary>
    private static double PassesPerSecond(IMachine machine, int throttle)
    {
        machine.Throttle(throttle);
        Thread.Sleep(200);
        ulong before = machine.Progress.Passes;
        var clock = Stopwatch.StartNew();
        Thread.Sleep(1500);
        return (machine.Progress.Passes - before) / clock.Elapsed.TotalSeconds;
    }
}
