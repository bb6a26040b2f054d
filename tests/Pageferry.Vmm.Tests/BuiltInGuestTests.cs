using System.Buffers.Binary;
using Pageferry.Memory;

namespace Pageferry.Vmm.Tests;

public class BuiltInGuestTests
{
    private const ulong Size = 16 << 20;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    public static TheoryData<MachineHost, string, int> Guests => new MatrixTheoryData<MachineHost, string, int>(
        [MachineHost.Kvm, MachineHost.Threads], ["stamp", "random"], [1, 2, 3]);

    [Theory]
    [MemberData(nameof(Guests))]
    public void A_guest_finds_every_page_as_it_left_it(MachineHost host, string guest, int vcpus)
    {
        using IMachine machine = Create(host, guest, new MachineConfiguration(Size, vcpus, Passes: 6));
        machine.Start();
        Assert.True(machine.Ended.Wait(s_patience));
        MachineProgress progress = machine.Progress;
        Assert.Null(progress.Failure);
        Assert.Equal(0, progress.ExitCode);
        Assert.Equal(6UL, progress.Passes);
        ulong pages = host == MachineHost.Kvm ? (Size - BootLayout.GuestBase) / Page.Size - 1 : Size / Page.Size;
        Assert.Equal(pages * 5, progress.PagesChecked);
        Assert.Equal(0UL, progress.PagesWrong);
    }

    public static TheoryData<MachineHost, string, int> Words => new MatrixTheoryData<MachineHost, string, int>(
        [MachineHost.Kvm, MachineHost.Threads], ["stamp", "random"], [GuestWords.StampOffset, GuestWords.HashOffset]);

    [Theory]
    [MemberData(nameof(Words))]
    public void A_changed_word_is_reported_and_ends_the_guest(MachineHost host, string guest, int offset)
    {
        const ulong Page700 = 700 * Page.Size;
        using IMachine machine = Create(host, guest, new MachineConfiguration(Size));
        var lines = new List<string>();
        machine.ConsoleLine += lines.Add;
        machine.Start();
        Assert.True(SpinWait.SpinUntil(() => machine.Progress.Passes > 2, s_patience));
        machine.Pause();
        var word = new byte[8];
        machine.Memory.Read(Page700 + (ulong)offset, word);
        ulong right = BinaryPrimitives.ReadUInt64LittleEndian(word);
        machine.Memory.Write(Page700 + (ulong)offset, [0xEF, 0xBE, 0xAD, 0xDE, 0, 0, 0, 0]);
        machine.Resume();
        Assert.True(machine.Ended.Wait(s_patience));
        Assert.Equal(1, machine.Progress.ExitCode);
        Assert.Equal(1UL, machine.Progress.PagesWrong);
        string what = offset == GuestWords.StampOffset ? "stamp" : "hash";
        string line = Assert.Single(lines);
        Assert.StartsWith($"wrong {what} in page 0x{Page700:x16}: expected 0x", line, StringComparison.Ordinal);
        Assert.EndsWith(", found 0x00000000deadbeef", line, StringComparison.Ordinal);
        if (offset == GuestWords.HashOffset)
        {
            Assert.Contains($"expected 0x{right:x16}", line, StringComparison.Ordinal);
        }
    }

    [Theory]
    [MemberData(nameof(Guests))]
    public void A_machine_goes_on_from_another_ones_state_and_memory(MachineHost host, string guest, int vcpus)
    {
        using IMachine first = Create(host, guest, new MachineConfiguration(Size, vcpus, Seed: 99));
        first.Start();
        Assert.True(SpinWait.SpinUntil(() => first.Progress.Passes > 2, s_patience));
        first.Pause();
        byte[] state = first.SaveState();

        GuestMemory memory = GuestMemory.Create(Size);
        first.Memory.HostView(0, (int)Size).CopyTo(memory.HostView(0, (int)Size));
        using IMachine second = host == MachineHost.Kvm ? KvmMachine.Create(memory, vcpus) : ThreadMachine.Create(memory, vcpus);
        using var executed = new ManualResetEventSlim();
        second.FirstInstruction += executed.Set;
        second.LoadState(state);
        Assert.Equal(first.Progress.PagesChecked, second.Progress.PagesChecked);
        second.Start();
        Assert.True(executed.Wait(s_patience));
        ulong passes = second.Progress.Passes;
        Assert.True(SpinWait.SpinUntil(() => second.Progress.Passes > passes + 5 || second.Progress.Ended, s_patience));
        Assert.False(second.Progress.Ended);
        Assert.Null(second.Progress.Failure);
    }

    [Fact]
    public void Pausing_and_resuming_a_thousand_times_loses_nothing()
    {
        using IMachine machine = Create(MachineHost.Kvm, "random", new MachineConfiguration(Size, 2));
        machine.Start();
        for (int i = 0; i < 1000; i++)
        {
            machine.Pause();
            machine.Resume();
        }

        ulong passes = machine.Progress.Passes;
        Assert.True(SpinWait.SpinUntil(() => machine.Progress.Passes > passes + 3, s_patience));
        Assert.False(machine.Progress.Ended);
    }

    internal static IMachine Create(MachineHost host, string guest, MachineConfiguration configuration)
    {
        KvmDevice.SkipIfMissing(host.ToString());
        return host == MachineHost.Kvm ? KvmMachine.Create(configuration, GuestImage.Find(guest)) : ThreadMachine.Create(configuration, guest);
    }
}
