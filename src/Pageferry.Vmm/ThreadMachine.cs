using System.Buffers.Binary;
using System.Text;
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

    /// <inheritdoc/>
    public override DirtyTracking DirtyTracking => DirtyTracking.Scan;

    /// <summary>Makes a machine with a built-in guest, ready to start.</summary>
    /// <param name="configuration">What it is made of; threads run as users.</param>
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

        if (configuration.DirtyTracking is not (DirtyTracking.Auto or DirtyTracking.Scan))
        {
            throw new ArgumentException($"What threads write is told by page tables (scan), not by {configuration.DirtyTracking}.", nameof(configuration));
        }

        if (configuration.Privilege != GuestPrivilege.User)
        {
            throw new ArgumentException("Threads run as users: a guest that is to run as a kernel (CPL 0) needs KVM.", nameof(configuration));
        }

        KvmMachine.CheckMemory(configuration.MemorySize);
        ThreadMachine machine = Make(MachineMemory.Create([new GuestRegion(0, configuration.MemorySize)], configuration.Backing), configuration.VcpuCount);
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

        machine.Prepare();
        return machine;
    }

    /// <summary>Makes a machine around memory, for a state that is loaded next.</summary>
    /// <param name="memory">The memory; owned by the machine, also when this fails.</param>
    /// <param name="vcpuCount">How many threads.</param>
    /// <returns>The machine, which the caller disposes.</returns>
    /// <exception cref="ArgumentException">Too many or too few threads.</exception>
    public static ThreadMachine Create(GuestMemory memory, int vcpuCount)
    {
        ThreadMachine machine = Make(memory, vcpuCount);
        machine.Prepare();
        return machine;
    }

    /// <inheritdoc/>
    public override IDirtyTracker TrackDirtyPages() => new ScanDirtyTracker(Memory);

    private protected override void Enter(int vcpu)
    {
    }

    private protected override void Run(int vcpu)
    {
        Worker worker = _workers[vcpu];
        while (Gate.MayRun)
        {
            Step(vcpu, worker);
            SeeFirstInstruction();
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

    private static ThreadMachine Make(GuestMemory memory, int vcpuCount)
    {
        if (vcpuCount is < 1 or > BootLayout.MostVcpus)
        {
            memory.Dispose();
            throw new ArgumentException($"A machine has 1 to {BootLayout.MostVcpus} vCPUs, not {vcpuCount}.", nameof(vcpuCount));
        }

        return new ThreadMachine(memory, vcpuCount);
    }

    /// <summary>One page, or the end of a pass.</summary>
    private void Step(int vcpu, Worker worker)
    {
        if (worker.Step < worker.Count)
        {
            if (Visit(vcpu, worker, worker.Random ? Scatter(worker) : worker.Step))
            {
                worker.Step++;
            }

            return;
        }

        if (worker.Pass > worker.LastPass && worker.LastPass != 0)
        {
            FinishOrWait(vcpu);
            return;
        }

        Report(vcpu, worker.Pass == 1 ? 0 : (uint)worker.Count);
        worker.Pass++;
        worker.Step = worker.Pass > worker.LastPass && worker.LastPass != 0 ? worker.Count : 0;
    }

    /// <summary>After its last pass a worker waits for the others.</summary>
    private void FinishOrWait(int vcpu)
    {
        if (Array.TrueForAll(_workers, worker => Volatile.Read(ref worker.Pass) > worker.LastPass))
        {
            End(vcpu, 0);
        }
        else
        {
            Thread.Sleep(1);
        }
    }

    /// <summary>Checks a page and writes the pass's stamp.</summary>
    /// <returns>Whether the page was right.</returns>
    private bool Visit(int vcpu, Worker worker, ulong page)
    {
        ulong gpa = Memory.GpaOf(worker.First + page);
        ulong hash = GuestWords.Hash(gpa / Page.Size, worker.Seed);
        Span<byte> stamp = stackalloc byte[sizeof(ulong)];
        Span<byte> end = stackalloc byte[2 * sizeof(ulong)];
        if (worker.Pass > 1)
        {
            ulong expected = worker.Random ? GuestWords.Expected(page, worker.Pass) : worker.Pass - 1;
            Memory.ReadAsGuest(gpa + GuestWords.StampOffset, stamp);
            Memory.ReadAsGuest(gpa + GuestWords.EndStampOffset, end);
            if (!Check(vcpu, "stamp", gpa, expected, stamp) ||
                !Check(vcpu, "end stamp", gpa, expected, end) ||
                !Check(vcpu, "hash", gpa, hash, end[sizeof(ulong)..]))
            {
                return false;
            }
        }

        if (!worker.Random || GuestWords.Writes(page, worker.Pass))
        {
            BinaryPrimitives.WriteUInt64LittleEndian(stamp, worker.Pass);
            BinaryPrimitives.WriteUInt64LittleEndian(end, worker.Pass);
            BinaryPrimitives.WriteUInt64LittleEndian(end[sizeof(ulong)..], hash);
            Memory.WriteAsGuest(gpa + GuestWords.StampOffset, stamp);
            Memory.WriteAsGuest(gpa + GuestWords.EndStampOffset, end);
        }

        return true;
    }

    private bool Check(int vcpu, string what, ulong gpa, ulong expected, ReadOnlySpan<byte> word)
    {
        ulong found = BinaryPrimitives.ReadUInt64LittleEndian(word);
        if (found == expected)
        {
            return true;
        }

        Print(vcpu, Encoding.ASCII.GetBytes($"wrong {what} in page 0x{gpa:x16}: expected 0x{expected:x16}, found 0x{found:x16}\n"));
        Report(vcpu, GuestPort.ReportWrong | 1);
        End(vcpu, 1);
        return false;
    }

    /// <summary>A pseudo-random order of the slice, another one in each pass: steps of a stride that has no divisor in common with the slice reach every page.</summary>
    private static ulong Scatter(Worker worker)
    {
        if (worker.StridePass != worker.Pass)
        {
            worker.StridePass = worker.Pass;
            worker.Stride = (GuestWords.OrderMultiplier + (worker.Pass * 2)) % worker.Count;
            while (GreatestCommonDivisor(worker.Stride, worker.Count) != 1)
            {
                worker.Stride++;
            }
        }

        // Both below 2^32: a guest has fewer pages than that.
        return worker.Step * worker.Stride % worker.Count;
    }

    private static ulong GreatestCommonDivisor(ulong a, ulong b)
    {
        while (b != 0)
        {
            (a, b) = (b, a % b);
        }

        return a;
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

        /// <summary>The order of the pass that it was made for.</summary>
        internal ulong Stride;
        internal ulong StridePass;
    }
}
