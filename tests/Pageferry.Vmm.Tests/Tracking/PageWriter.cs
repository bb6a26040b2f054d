using System.Buffers.Binary;
using Iced.Intel;
using Pageferry.Memory;
using static Iced.Intel.AssemblerRegisters;

namespace Pageferry.Vmm.Tests.Tracking;

/// <summary>A guest that adds 1 to the first word of the pages that it is told, and otherwise stands still.</summary>
public sealed class PageWriter : IDisposable
{
    private const ulong Memory = 64UL << 20;

    /// <summary>Where the guest finds the address of what to write, and leaves 0 when it has.</summary>
    private const ulong Mailbox = 0x18_0000;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    private PageWriter(IMachine machine) => Machine = machine;

    public IMachine Machine { get; }

    /// <summary>A guest of KVM.</summary>
    /// <param name="memory">Its memory; the first region has 2 MiB at least.</param>
    /// <param name="dirtyTracking">What tells its writes.</param>
    public static PageWriter UnderKvm(GuestMemory memory, DirtyTracking dirtyTracking)
    {
        KvmDevice.SkipIfMissing();

        // Tables for more memory than there is in the first region, and the state of a guest that begins: for a machine of any regions.
        using KvmMachine first = KvmMachine.Create(new MachineConfiguration(Memory), GuestImage.Flat("writer", Code()));
        var begin = new byte[2 << 20];
        first.Memory.Read(0, begin);
        memory.Write(0, begin);
        KvmMachine machine = KvmMachine.Create(memory, 1, dirtyTracking);
        Assert.Equal(dirtyTracking, machine.DirtyTracking);
        machine.LoadState(first.SaveState());
        machine.Start();
        machine.Pause();
        return new PageWriter(machine);
    }

    /// <summary>No guest but this thread, writing as one.</summary>
    public static PageWriter OfThreads(GuestMemory memory) => new(ThreadMachine.Create(memory, 1));

    /// <summary>Has the guest write; it stands still when this returns.</summary>
    /// <param name="pages">The pages.</param>
    public void Write(ReadOnlySpan<ulong> pages)
    {
        Span<byte> word = stackalloc byte[sizeof(ulong)];
        foreach (ulong page in pages)
        {
            ulong gpa = Machine.Memory.GpaOf(page);
            if (Machine.Host == MachineHost.Threads)
            {
                BinaryPrimitives.WriteUInt64LittleEndian(word, (ulong)Read(page) + 1);
                Machine.Memory.WriteAsGuest(gpa, word);
                continue;
            }

            BinaryPrimitives.WriteUInt64LittleEndian(word, gpa);
            Machine.Memory.Write(Mailbox, word);
            Machine.Resume();
            Assert.True(SpinWait.SpinUntil(() => ReadWord(Mailbox) == 0, s_patience), $"{Machine.Progress}");
            Machine.Pause();
        }
    }

    /// <summary>How often the guest has written a page.</summary>
    public long Read(ulong page) => (long)ReadWord(Machine.Memory.GpaOf(page));

    public void Dispose() => Machine.Dispose();

    private ulong ReadWord(ulong gpa)
    {
        Span<byte> word = stackalloc byte[sizeof(ulong)];
        Machine.Memory.Read(gpa, word);
        return BinaryPrimitives.ReadUInt64LittleEndian(word);
    }

    private static byte[] Code()
    {
        var asm = new Assembler(64);
        Label again = asm.CreateLabel();
        asm.mov(rbx, Mailbox);
        asm.Label(ref again);
        asm.mov(rax, __qword_ptr[rbx]);
        asm.test(rax, rax);
        asm.je(again);
        asm.inc(__qword_ptr[rax]);
        asm.mov(__qword_ptr[rbx], 0);
        asm.jmp(again);
        using var code = new MemoryStream();
        _ = asm.Assemble(new StreamCodeWriter(code), BootLayout.GuestBase);
        return code.ToArray();
    }
}
