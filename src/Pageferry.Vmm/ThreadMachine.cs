using System.Buffers.Binary;
using Pageferry.Memory;

namespace Pageferry.Vmm;

/// <summary>
/// The built-in guests' work done by ordinary threads, for hosts without KVM. The threads touch guest memory in native code, so that a missing
/// page is a userfault as it is under KVM.
/// </summary>
public sealed class ThreadMachine : Machine
{
    private const int StateBytes = 48;

    private readonly Worker[] _workers;

    private ThreadMachine(GuestMemory memory, int vcpuCount)
        : base(memory, vcpuCount) => _workers = [.. Enumerable.Range(0, vcpuCount).Select(_ => new Worker())];

    /// <inheritdoc/>
    public override MachineHost Host => MachineHost.Threads;

    /// <summary>Makes a machine with a built-in guest, ready to start.</summary>
    /// <param name="configuration">What it is made of; the privilege has no meaning here.</param>
    /// <param name="guest">"stamp" or "random".</param>
    /// <returns>The machine, which the caller disposes.</returns>
    /// <exception cref="ArgumentException">There is no such built-in guest, or the configuration makes no sense.</exception>
    /// <exception cref="Linux.LinuxException">The memory is refused.</exception>
    public static ThreadMachine Create(MachineConfiguration configuration, string guest)
    {
        if (!BuiltInGuest.Names.Contains(guest, StringComparer.Ordinal))
        {
            throw new ArgumentException($"Without KVM only built-in guests run ({string.Join(", ", BuiltInGuest.Names)}), not '{guest}'.", nameof(guest));
        }

        KvmMachine.CheckMemory(configuration.MemorySize);
        ThreadMachine machine = Create(GuestMemory.Create(configuration.MemorySize, configuration.Backing), configuration.VcpuCount);
        ulong pages = machine.Memory.PageCount;
        for (int i = 0; i < machine._workers.Length; i++)
        {
            ulong first = pages * (ulong)i / (ulong)machine._workers.Length;
            machine._workers[i].First = first;
            machine._workers[i].Count = (pages * ((ulong)i + 1) / (ulong)machine._workers.Length) - first;
            machine._workers[i].Seed = configuration.Seed;
            machine._workers[i].LastPass = configuration.Passes;
            machine._workers[i].Random = guest == "random";
        }

        return machine;
    }

    /// <summary>Makes a machine around memory, for a state that is loaded next.</summary>
    /// <param name="memory">The memory; owned by the machine, also when this fails.</param>
    /// <param name="vcpuCount">How many threads.</param>
    /// <returns>The machine, which the caller disposes.</returns>
    /// <exception cref="ArgumentException">Too many or too few threads.</exception>
    public static ThreadMachine Create(GuestMemory memory, int vcpuCount)
    {
        if (vcpuCount is < 1 or > BootLayout.MostVcpus)
        {
            memory.Dispose();
            throw new ArgumentException($"A machine has 1 to {BootLayout.MostVcpus} vCPUs, not {vcpuCount}.", nameof(vcpuCount));
        }

        return new ThreadMachine(memory, vcpuCount);
    }

    private protected override void Run(int vcpu)
    {
        Worker worker = _workers[vcpu];
        while (Park(vcpu))
        {
            while (MayRun(vcpu))
            {
                Step(vcpu, worker);
                SeeFirstInstruction();
            }
        }
    }

    /// <summary>The threads look at the pause flag at every page; one that waits for a page is waited for.</summary>
    private protected override void Kick(int vcpu)
    {
    }

    private protected override byte[] SaveVcpu(int vcpu)
    {
        Worker worker = _workers[vcpu];
        var state = new byte[StateBytes];
        BinaryPrimitives.WriteUInt64LittleEndian(state, worker.First);
        BinaryPrimitives.WriteUInt64LittleEndian(state.AsSpan(8), worker.Count);
        BinaryPrimitives.WriteUInt64LittleEndian(state.AsSpan(16), worker.Seed);
        BinaryPrimitives.WriteUInt64LittleEndian(state.AsSpan(24), worker.Pass);
        BinaryPrimitives.WriteUInt64LittleEndian(state.AsSpan(32), (worker.Step << 1) | (worker.Random ? 1UL : 0));
        BinaryPrimitives.WriteUInt64LittleEndian(state.AsSpan(40), worker.LastPass);
        return state;
    }

    private protected override void LoadVcpu(int vcpu, ReadOnlySpan<byte> state)
    {
        if (state.Length != StateBytes)
        {
            throw new InvalidDataException($"The state of a guest thread has {StateBytes} bytes, not {state.Length}.");
        }

        Worker worker = _workers[vcpu];
        worker.First = BinaryPrimitives.ReadUInt64LittleEndian(state);
        worker.Count = BinaryPrimitives.ReadUInt64LittleEndian(state[8..]);
        worker.Seed = BinaryPrimitives.ReadUInt64LittleEndian(state[16..]);
        worker.Pass = BinaryPrimitives.ReadUInt64LittleEndian(state[24..]);
        worker.Step = BinaryPrimitives.ReadUInt64LittleEndian(state[32..]) >> 1;
        worker.Random = (state[32] & 1) != 0;
        worker.LastPass = BinaryPrimitives.ReadUInt64LittleEndian(state[40..]);
        if (worker.First > Memory.PageCount || worker.Count > Memory.PageCount - worker.First || worker.Step > worker.Count || worker.Pass == 0)
        {
            throw new InvalidDataException($"The state of guest thread {vcpu} does not fit a memory of {Memory.PageCount} pages.");
        }
    }

    private protected override void DisposeVcpus()
    {
    }

    /// <summary>One page, or the end of a pass.</summary>
    private void Step(int vcpu, Worker worker)
    {
        if (worker.Step == worker.Count)
        {
            Report(vcpu, worker.Pass == 1 ? 0 : worker.Count);
            if (worker.Pass == worker.LastPass)
            {
                End(vcpu, 0);
                return;
            }

            worker.Pass++;
            worker.Step = 0;
            return;
        }

        ulong page = worker.Random ? Scatter(worker.Step, worker.Pass, worker.Count) : worker.Step;
        ulong gpa = Memory.GpaOf(worker.First + page);
        ulong hash = GuestWords.Hash(gpa / Page.Size, worker.Seed);
        if (worker.Pass == 1)
        {
            WriteWord(gpa + GuestWords.HashOffset, hash);
        }
        else
        {
            ulong expected = worker.Random ? GuestWords.Expected(page, worker.Pass) : worker.Pass - 1;
            if (!Check(vcpu, "stamp", gpa, GuestWords.StampOffset, expected) || !Check(vcpu, "hash", gpa, GuestWords.HashOffset, hash))
            {
                return;
            }
        }

        if (!worker.Random || GuestWords.Writes(page, worker.Pass))
        {
            WriteWord(gpa + GuestWords.StampOffset, worker.Pass);
        }

        worker.Step++;
    }

    /// <summary>A pseudo-random order of the slice: multiplication by an odd number coprime to the count permutes it.</summary>
    private static ulong Scatter(ulong step, ulong pass, ulong count)
    {
        ulong stride = (GuestWords.OrderMultiplier + (pass * 2)) % count;
        while (GreatestCommonDivisor(stride, count) != 1)
        {
            stride++;
        }

        return (ulong)((UInt128)step * stride % count);
    }

    private static ulong GreatestCommonDivisor(ulong a, ulong b)
    {
        while (b != 0)
        {
            (a, b) = (b, a % b);
        }

        return a;
    }

    private bool Check(int vcpu, string what, ulong gpa, int offset, ulong expected)
    {
        Span<byte> word = stackalloc byte[sizeof(ulong)];
        Memory.ReadAsGuest(gpa + (ulong)offset, word);
        ulong found = BinaryPrimitives.ReadUInt64LittleEndian(word);
        if (found == expected)
        {
            return true;
        }

        foreach (char character in $"wrong {what} in page 0x{gpa:x16}: expected 0x{expected:x16}, found 0x{found:x16}\n")
        {
            Print(vcpu, (byte)character);
        }

        ReportWrong();
        End(vcpu, 1);
        return false;
    }

    private void WriteWord(ulong gpa, ulong value)
    {
        Span<byte> word = stackalloc byte[sizeof(ulong)];
        BinaryPrimitives.WriteUInt64LittleEndian(word, value);
        Memory.WriteAsGuest(gpa, word);
    }

    private sealed class Worker
    {
        internal ulong First;
        internal ulong Count;
        internal ulong Seed;
        internal ulong Pass = 1;
        internal ulong Step;
        internal ulong LastPass;
        internal bool Random;
    }
}
