using System.Diagnostics;
using System.Text.Json.Nodes;
using Iced.Intel;
using Pageferry.Kvm;
using Pageferry.Memory;
using Pageferry.Vmm;
using static Iced.Intel.AssemblerRegisters;

namespace Pageferry.Bench;

/// <summary>What it takes to find what an instruction touches, without the exit before it: whole, and by its parts.</summary>
internal static class Locator
{
    private const ulong MemoryBytes = 8 << 20;
    private const ulong Code = BootLayout.GuestBase;
    private const ulong Data = 0x20_0000;
    private const ulong Indices = Data + 0x800;
    private const int Batch = 16;
    private const int Batches = 500;

    /// <summary>Times each instruction in each round; the result is the median of the rounds' medians.</summary>
    public static int Measure(int rounds)
    {
        var result = new Comparison("locator", rounds);
        Add(result, "load", rounds, c => c.mov(rax, __[rbx]));
        Add(result, "push", rounds, c => c.push(rax));
        Add(result, "rep_movs", rounds, c => c.rep.movsq());
        Add(result, "gather", rounds, c => c.vgatherdps(ymm0, __dword_ptr[rbx + (ymm1 * 4)], ymm2));
        AddExit(result, rounds);
        result.Store();
        return 0;
    }

    private static void Add(Comparison result, string name, int rounds, Action<Assembler> instruction)
    {
        using var kvm = Kvm.Kvm.Open();
        using VirtualMachine machine = kvm.CreateVirtualMachine();
        using var memory = GuestMemory.Create(MemoryBytes);
        using VirtualCpu vcpu = Boot(kvm, machine, memory, instruction);
        GuestReader read = (gpa, destination) => Read(memory, gpa, destination);
        var locator = new FaultLocator(read);
        var fetch = new InstructionFetch();
        var candidates = new FaultCandidate[FaultLocator.MostCandidates];
        var xsave = new byte[vcpu.XsaveBytes];
        vcpu.ReadXsave(xsave);
        ulong xcr0 = vcpu.Xcr0;
        VcpuContext context = vcpu.ReadContext();
        int count = locator.Locate(vcpu, candidates);

        // Before the kernel leaves them in the shared memory, and after.
        var medians = new SortedDictionary<string, List<double>>(StringComparer.Ordinal);
        for (int round = 0; round < rounds; round++)
        {
            Time("registers_by_ioctl_ns", () => vcpu.ReadContext().Registers.Rip);
            Time("whole_by_ioctl_ns", () => (ulong)locator.Locate(vcpu, candidates));
        }

        bool isSynchronized = vcpu.TrySynchronizeContext();
        vcpu.Kick();
        _ = vcpu.Run();
        for (int round = 0; round < rounds; round++)
        {
            Time("registers_ns", () => vcpu.ReadContext().Registers.Rip);
            Time("whole_ns", () => (ulong)locator.Locate(vcpu, candidates));
            Time("without_registers_ns", () => (ulong)locator.Locate(in context, xcr0, xsave, candidates));
            Time("fetch_and_decode_ns", () => Decode(fetch, read, context, candidates));
            Time("vectors_by_ioctl_ns", () => ReadVectors(vcpu, xsave));
            Time("walk_ns", () => Walk(read, context, candidates));
        }

        var parts = new JsonObject { ["candidates"] = count, ["synchronized_registers"] = isSynchronized };
        foreach ((string part, List<double> values) in medians)
        {
            parts[part] = Math.Round(Comparison.Median(values), 1);
        }

        result.Add(name, parts);
        Console.WriteLine($"locator, {name}: {parts.ToJsonString()}");

        void Time(string part, Func<ulong> action)
        {
            if (!medians.TryGetValue(part, out List<double>? values))
            {
                medians[part] = values = [];
            }

            values.Add(MedianNanoseconds(action));
        }
    }

    /// <summary>What it costs every exit that the kernel leaves the registers in the shared memory.</summary>
    private static void AddExit(Comparison result, int rounds)
    {
        using var kvm = Kvm.Kvm.Open();
        using VirtualMachine machine = kvm.CreateVirtualMachine();
        using var memory = GuestMemory.Create(MemoryBytes);
        using VirtualCpu vcpu = Boot(kvm, machine, memory, c =>
        {
            Label again = c.CreateLabel();
            c.Label(ref again);
            c.@out((byte)GuestPort.Report, eax);
            c.jmp(again);
        });
        var parts = new JsonObject();
        foreach (string part in new[] { "exit_ns", "exit_that_leaves_registers_ns" })
        {
            double[] medians = [.. Enumerable.Range(0, rounds).Select(_ => MedianNanoseconds(() => vcpu.Run().Address))];
            parts[part] = Math.Round(Comparison.Median(medians));
            _ = vcpu.TrySynchronizeContext();
        }

        result.Add("exit", parts);
        Console.WriteLine($"locator, exit: {parts.ToJsonString()}");
    }

    /// <summary>The median over batches: the clock is too coarse for one call.</summary>
    private static double MedianNanoseconds(Func<ulong> action)
    {
        var batches = new double[Batches];
        ulong sum = 0;
        for (int batch = -Batches / 4; batch < Batches; batch++)
        {
            long start = Stopwatch.GetTimestamp();
            for (int i = 0; i < Batch; i++)
            {
                sum += action();
            }

            if (batch >= 0)
            {
                batches[batch] = Stopwatch.GetElapsedTime(start).TotalNanoseconds / Batch;
            }
        }

        GC.KeepAlive(sum);
        return Comparison.Median(batches);
    }

    private static ulong Decode(InstructionFetch fetch, GuestReader read, in VcpuContext context, FaultCandidate[] candidates)
    {
        var linear = new LinearMemory(read, in context, candidates);
        return fetch.TryFetch(ref linear, out Instruction instruction) ? (ulong)instruction.Length : 0;
    }

    private static ulong ReadVectors(VirtualCpu vcpu, byte[] xsave)
    {
        vcpu.ReadXsave(xsave);
        return xsave[0];
    }

    private static ulong Walk(GuestReader read, in VcpuContext context, FaultCandidate[] candidates)
    {
        var found = new FaultCandidates(candidates);
        _ = PageWalker.TryWalk(read, context.SystemRegisters, Data, FaultAccess.Write, ref found, out ulong at);
        return at;
    }

    /// <summary>As a fault handler reads: from the host view, if the page is there.</summary>
    private static bool Read(GuestMemory memory, ulong gpa, Span<byte> destination)
    {
        if (gpa >= MemoryBytes)
        {
            return false;
        }

        memory.HostView(gpa, destination.Length).CopyTo(destination);
        return true;
    }

    private static VirtualCpu Boot(Kvm.Kvm kvm, VirtualMachine machine, GuestMemory memory, Action<Assembler> instruction)
    {
        // The instruction stands behind an exit, before which the vectors get their indices, each of another page, and their mask.
        var assembler = new Assembler(64);
        assembler.vmovdqu(ymm1, __ymmword_ptr[Indices]);
        assembler.vpcmpeqd(ymm2, ymm2, ymm2);
        assembler.@out((byte)GuestPort.Report, eax);
        instruction(assembler);
        var code = new MemoryStream();
        _ = assembler.Assemble(new StreamCodeWriter(code), Code);
        memory.Write(Code, code.ToArray());
        for (uint i = 0; i < 8; i++)
        {
            memory.Write(Indices + (i * sizeof(uint)), BitConverter.GetBytes(i * (uint)Page.Size / sizeof(float)));
        }

        BootLayout.Write(memory, new MachineConfiguration(MemoryBytes), Data);
        machine.SetMemoryRegion(0, 0, MemoryBytes, memory.GuestViewAddress(0));
        VirtualCpu vcpu = machine.CreateVcpu(0);
        BootLayout.Prepare(vcpu, kvm.GetSupportedCpuid(), GuestPrivilege.User, Code);
        vcpu.BindToCurrentThread();
        vcpu.Registers = vcpu.Registers with { Rbx = Data, Rsi = Data, Rdi = Data + 0x10_0000, Rcx = 1024 };
        _ = vcpu.Run();
        vcpu.Kick();
        _ = vcpu.Run();
        return vcpu;
    }
}
