using System.Buffers.Binary;
using Pageferry.Kvm;
using Pageferry.Linux;
using Pageferry.Memory;

namespace Pageferry.Vmm;

/// <summary>A guest under KVM: one thread per vCPU, memory slots over the guest view.</summary>
public sealed class KvmMachine : Machine
{
    private readonly Kvm.Kvm _kvm;
    private readonly VirtualMachine _virtualMachine;
    private readonly VirtualCpu[] _vcpus;
    private readonly VcpuRegisters[] _loaded;

    /// <summary>For each vCPU the engine that it is prepared for, and what finds its faults then.</summary>
    private readonly FaultEngine?[] _prepared;
    private readonly VcpuFaults?[] _faults;
    private readonly DirtyRings? _dirtyRings;
    private readonly Func<bool> _mayWait;
    private readonly Func<bool> _mayFinish;

    /// <summary>Whether the slots have bitmaps of userfaults.</summary>
    private bool _exitsByKvm;

    private KvmMachine(Kvm.Kvm kvm, VirtualMachine virtualMachine, GuestMemory memory, int vcpuCount, DirtyTracking dirtyTracking)
        : base(memory, vcpuCount)
    {
        _kvm = kvm;
        _virtualMachine = virtualMachine;
        DirtyTracking = dirtyTracking;
        SetSlots(bitmap: null);
        _vcpus = CreateVcpus(virtualMachine, vcpuCount);
        _loaded = new VcpuRegisters[vcpuCount];
        _faults = new VcpuFaults?[vcpuCount];
        _prepared = new FaultEngine?[vcpuCount];
        _dirtyRings = dirtyTracking == DirtyTracking.Ring ? new DirtyRings(virtualMachine, memory, [.. _vcpus.Select(vcpu => vcpu.DirtyRing!)]) : null;
        _mayWait = () => Gate.MayRun;
        _mayFinish = () => Gate.MayFinish;
    }

    /// <summary>How many pages of a vCPU's step are looked at for the fault that came as an exit.</summary>
    internal int MostCandidates { get; set; } = FaultLocator.MostCandidates;

    /// <inheritdoc/>
    public override MachineHost Host => MachineHost.Kvm;

    /// <inheritdoc/>
    public override DirtyTracking DirtyTracking { get; }

    /// <summary>Makes a machine with a guest loaded, ready to start.</summary>
    /// <param name="configuration">What it is made of.</param>
    /// <param name="image">The guest.</param>
    /// <returns>The machine, which the caller disposes.</returns>
    /// <exception cref="ArgumentException">The configuration makes no sense; the message says what.</exception>
    /// <exception cref="InvalidDataException">The guest does not fit.</exception>
    /// <exception cref="LinuxException">KVM or the memory is refused.</exception>
    /// <exception cref="NotSupportedException">KVM can't run such a machine, or track its writes as asked for.</exception>
    public static KvmMachine Create(MachineConfiguration configuration, GuestImage image)
    {
        CheckMemory(configuration.MemorySize);
        KvmMachine machine = Make(MachineMemory.Create([new GuestRegion(0, configuration.MemorySize)], configuration.Backing), configuration.VcpuCount, configuration.DirtyTracking);
        try
        {
            image.Load(machine.Memory);
            BootLayout.Write(machine.Memory, configuration, image.End);
            byte[] cpuid = machine._kvm.GetSupportedCpuid();
            foreach (VirtualCpu vcpu in machine._vcpus)
            {
                BootLayout.Prepare(vcpu, cpuid, configuration.Privilege, image.Entry);
            }

            machine.Prepare();
            return machine;
        }
        catch
        {
            machine.Dispose();
            throw;
        }
    }

    /// <summary>Makes a machine around memory, for a state that is loaded next.</summary>
    /// <param name="memory">The memory; owned by the machine, also when this fails.</param>
    /// <param name="vcpuCount">How many vCPUs.</param>
    /// <param name="dirtyTracking">What is to tell which pages the guest writes.</param>
    /// <returns>The machine, which the caller disposes.</returns>
    /// <exception cref="ArgumentException">More vCPUs than KVM or the boot layout allows, or a tracking that is not KVM's.</exception>
    /// <exception cref="LinuxException">KVM is refused.</exception>
    /// <exception cref="NotSupportedException">KVM can't run such a machine, or track its writes as asked for.</exception>
    public static KvmMachine Create(GuestMemory memory, int vcpuCount, DirtyTracking dirtyTracking = DirtyTracking.Auto)
    {
        KvmMachine machine = Make(memory, vcpuCount, dirtyTracking);
        try
        {
            machine.Prepare();
            return machine;
        }
        catch
        {
            machine.Dispose();
            throw;
        }
    }

    /// <summary>Whether a machine can have so much memory.</summary>
    /// <param name="size">Bytes.</param>
    /// <exception cref="ArgumentException">It can't; the message says why.</exception>
    public static void CheckMemory(ulong size)
    {
        if (size % Page.Size != 0 || size < BootLayout.LeastMemory || size > BootLayout.MostMemory)
        {
            throw new ArgumentException(
                $"A machine has {BootLayout.LeastMemory >> 20} MiB to {BootLayout.MostMemory >> 30} GiB of memory in whole pages of {Page.Size} bytes, not {size} bytes.", nameof(size));
        }
    }

    /// <inheritdoc/>
    public override IDirtyTracker TrackDirtyPages() => new KvmDirtyTracker(_virtualMachine, Memory, _dirtyRings);

    /// <summary>Where KVM can, it makes the exits itself, with the address and without a locator. KVM's own accesses wait in the queue then.</summary>
    private protected override void Attend(FaultEngine? engine)
    {
        if (_exitsByKvm)
        {
            SetSlots(bitmap: null);
        }

        _exitsByKvm = engine is { Delivery: FaultDelivery.Exit } && !Memory.IsRegistered && _kvm.ProbeUserfault() is null;
        if (_exitsByKvm)
        {
            SetSlots(engine!.ShareArmed());
        }

        // An instruction whose page is hidden between the processor's fetch and that of KVM's emulator is a fault, and no invalid opcode. A software KVM makes it
        // one all the same, so nothing is hidden there while a vCPU runs.
        bool exits = engine is { Delivery: FaultDelivery.Exit };
        _ = _virtualMachine.TrySetEmulationExits(exits);
        if (exits && Kvm.Kvm.WalksGuestTables)
        {
            engine!.RunStill = Gate.RunStill;
        }
    }

    private protected override void Enter(int vcpu)
    {
        _vcpus[vcpu].BindToCurrentThread();

        // A run that is over before it has begun, so that the first real one finds its code compiled.
        _vcpus[vcpu].Kick();
        _ = _vcpus[vcpu].Run();
    }

    private protected override void Run(int vcpu)
    {
        VirtualCpu cpu = _vcpus[vcpu];
        if (Engine is { Delivery: FaultDelivery.Exit } engine && _prepared[vcpu] != engine)
        {
            if (!KvmOwnPages.TryPlace(engine, cpu, Kvm.Kvm.WalksGuestTables, _mayWait))
            {
                return;
            }

            _prepared[vcpu] = engine;
            _faults[vcpu] = new VcpuFaults(cpu, [engine], open: null, MostCandidates);
        }

        // Only an interrupted run ends here: it has completed the exit before it, so that the state is whole.
        for (VcpuExit exit = cpu.Run(); exit.Kind != VcpuExitKind.Interrupted; exit = cpu.Run())
        {
            if (TryResolve(vcpu, cpu, exit, out bool mayRun))
            {
                if (!mayRun)
                {
                    return;
                }

                continue;
            }

            SeeFirstInstruction();
            Handle(vcpu, cpu, exit);
        }

        if (AwaitsFirstInstruction && cpu.Registers != _loaded[vcpu])
        {
            SeeFirstInstruction();
        }
    }

    private protected override void Kick(int vcpu) => _vcpus[vcpu].Kick();

    private protected override byte[] SaveVcpu(int vcpu) => VcpuState.Capture(_virtualMachine, _vcpus[vcpu]).Serialize();

    private protected override void LoadVcpu(int vcpu, ReadOnlySpan<byte> state)
    {
        VcpuState loaded = VcpuState.Deserialize(state);
        loaded.Restore(_virtualMachine, _vcpus[vcpu]);
        _loaded[vcpu] = loaded.Registers;
    }

    private protected override void DisposeVcpus()
    {
        foreach (VirtualCpu vcpu in _vcpus)
        {
            vcpu.Dispose();
        }

        _virtualMachine.Dispose();
        _kvm.Dispose();
    }

    private static KvmMachine Make(GuestMemory memory, int vcpuCount, DirtyTracking dirtyTracking)
    {
        Kvm.Kvm? kvm = null;
        VirtualMachine? virtualMachine = null;
        try
        {
            kvm = Kvm.Kvm.Open();
            int most = Math.Min(kvm.MaxVcpus, BootLayout.MostVcpus);
            if (vcpuCount < 1 || vcpuCount > most)
            {
                throw new ArgumentException($"A machine has 1 to {most} vCPUs here, not {vcpuCount}.", nameof(vcpuCount));
            }

            virtualMachine = kvm.CreateVirtualMachine();
            return new KvmMachine(kvm, virtualMachine, memory, vcpuCount, EnableTracking(virtualMachine, dirtyTracking));
        }
        catch
        {
            virtualMachine?.Dispose();
            kvm?.Dispose();
            memory.Dispose();
            throw;
        }
    }

    /// <summary>Enables the rings if they are to tell what the guest writes: they belong to vCPUs, which are made after that.</summary>
    /// <returns>What will tell it.</returns>
    private static DirtyTracking EnableTracking(VirtualMachine virtualMachine, DirtyTracking asked)
    {
        switch (asked)
        {
            case DirtyTracking.Log:
            case DirtyTracking.Auto when virtualMachine.CheckExtension(KvmCapability.ManualDirtyLogProtect) > 0:
                return DirtyTracking.Log;

            case DirtyTracking.Auto or DirtyTracking.Ring:
                bool hasRings = virtualMachine.TryEnableDirtyRings(DirtyRings.Entries);
                return hasRings || asked == DirtyTracking.Auto
                    ? hasRings ? DirtyTracking.Ring : DirtyTracking.Log
                    : throw new NotSupportedException("This KVM has no dirty rings: it answers 0 for KVM_CAP_DIRTY_LOG_RING and KVM_CAP_DIRTY_LOG_RING_ACQ_REL. Use --dirty-tracking log.");

            default:
                throw new ArgumentException($"What a KVM guest writes is told by the log or the ring, not by {asked}.", nameof(asked));
        }
    }

    private static VirtualCpu[] CreateVcpus(VirtualMachine virtualMachine, int count)
    {
        var vcpus = new List<VirtualCpu>();
        try
        {
            while (vcpus.Count < count)
            {
                vcpus.Add(virtualMachine.CreateVcpu(vcpus.Count));
            }

            return [.. vcpus];
        }
        catch
        {
            vcpus.ForEach(static vcpu => vcpu.Dispose());
            throw;
        }
    }

    private void SetSlots(ArmedBitmap? bitmap)
    {
        for (int i = 0; i < Memory.Regions.Count; i++)
        {
            GuestRegion region = Memory.Regions[i];
            ulong address = Memory.GuestViewAddress(region.Gpa);
            if (bitmap is null)
            {
                _virtualMachine.SetMemoryRegion((uint)i, region.Gpa, region.Length, address);
            }
            else
            {
                _virtualMachine.SetUserfaultRegion((uint)i, region.Gpa, region.Length, address, bitmap.AddressOf(i));
            }
        }
    }

    /// <summary>Resolves an exit that is a userfault.</summary>
    /// <param name="vcpu">The vCPU.</param>
    /// <param name="cpu">The same.</param>
    /// <param name="exit">Why it stopped.</param>
    /// <param name="mayRun">Whether it may run again at once; false when it is to park first.</param>
    /// <returns>Whether it is one.</returns>
    private bool TryResolve(int vcpu, VirtualCpu cpu, in VcpuExit exit, out bool mayRun)
    {
        mayRun = true;
        if (Engine is not { Delivery: FaultDelivery.Exit } engine)
        {
            return false;
        }

        switch (exit.Kind)
        {
            case VcpuExitKind.MemoryFault when (exit.Value & (ulong)MemoryFaultFlags.Userfault) != 0 && Memory.Contains(exit.Address):
                mayRun = engine.Resolve(exit.Address, _mayWait);
                return true;

            // KVM's emulator could not access the page. The instruction is half done: the access is made here, and then it goes on.
            case VcpuExitKind.MmioRead or VcpuExitKind.MmioWrite when Memory.Contains(exit.Address):
                CompleteAccess(cpu, exit, engine);
                return true;

            default:
                return VcpuFaults.MayBe(exit) && TryResolveLocated(vcpu, exit, engine, out mayRun);
        }
    }

    private bool TryResolveLocated(int vcpu, in VcpuExit exit, FaultEngine engine, out bool mayRun)
    {
        VcpuFaults faults = _faults[vcpu]!;
        faults.Locate();
        bool found = false;
        mayRun = true;
        while (mayRun && faults.TryNext(out VcpuExit fault, out _))
        {
            found = true;
            mayRun = engine.Resolve(fault.Address, _mayWait);
        }

        // An engine that has stopped answers nothing; what it leaves behind is about to become accessible, if it is.
        if (found || (engine.IsStopped && Memory.IsRegistered) || faults.TryShowAgain(_mayWait))
        {
            return true;
        }

        mayRun = TryStepByQueue(vcpu, faults, engine, out bool faulted);
        return faulted || !mayRun;
    }

    /// <summary>Takes the fault of a vCPU's step by the queue, while no other vCPU runs.</summary>
    /// <param name="vcpu">The vCPU.</param>
    /// <param name="faults">Has located nothing.</param>
    /// <param name="engine">Answers.</param>
    /// <param name="faulted">Whether there was a fault to take.</param>
    /// <returns>False if the vCPU is to park first.</returns>
    private bool TryStepByQueue(int vcpu, VcpuFaults faults, FaultEngine engine, out bool faulted)
    {
        bool hasFaulted = false;
        bool wasRegistered = Memory.IsRegistered;
        VirtualCpu cpu = _vcpus[vcpu];
        bool hasRun = Gate.TryRunAlone(vcpu, () => engine.RunByQueue(faults.Describe(), faultsRead =>
        {
            // What is no fault is what it would be without exits: an invalid opcode.
            _ = _virtualMachine.TrySetEmulationExits(false);
            try
            {
                VcpuExit exit = RunToFault(cpu, engine, faultsRead, out hasFaulted);
                if (exit.Kind != VcpuExitKind.Interrupted)
                {
                    // It got past the fault and to an exit of its own before the kick.
                    hasFaulted = true;
                    SeeFirstInstruction();
                    Handle(vcpu, cpu, exit);
                }
            }
            finally
            {
                _ = _virtualMachine.TrySetEmulationExits(true);
            }
        }));
        if (!Gate.MayRun)
        {
            // The step may have taken the kick that was to have this seen.
            cpu.Kick();
        }

        // Memory that is being given up has no faults any more.
        faulted = hasFaulted || (wasRegistered && engine.IsStopped);
        return hasRun;
    }

    /// <summary>Runs a vCPU until its fault was answered, or there is none, or it has come to an exit of its own.</summary>
    private VcpuExit RunToFault(VirtualCpu cpu, FaultEngine engine, Func<long> faultsRead, out bool hasFaulted)
    {
        using var over = new ManualResetEventSlim();
        var kicker = new Thread(() => KickAfterFault(cpu, engine, faultsRead, over)) { IsBackground = true, Name = "step by queue" };
        kicker.Start();
        try
        {
            VcpuRegisters before = cpu.Registers;
            VcpuExit exit;
            do
            {
                exit = cpu.Run();
                hasFaulted = faultsRead() > 0 || cpu.Registers != before;
            }
            while (exit.Kind == VcpuExitKind.Interrupted && !hasFaulted && Gate.MayFinish && kicker.IsAlive);
            return exit;
        }
        finally
        {
            over.Set();
            kicker.Join();
        }
    }

    /// <summary>Ends a step: once its fault was answered, or when there is none.</summary>
    private void KickAfterFault(VirtualCpu cpu, FaultEngine engine, Func<long> faultsRead, ManualResetEventSlim over)
    {
        const int PatienceMilliseconds = 200;
        long begun = Environment.TickCount64;
        while (!over.Wait(1))
        {
            bool isAnswered = faultsRead() > 0 && engine.PendingFaults == 0;
            bool isInVain = faultsRead() == 0 && Environment.TickCount64 - begun > PatienceMilliseconds;
            if (isAnswered || isInVain || !Gate.MayFinish)
            {
                cpu.Kick();
            }

            if (isInVain)
            {
                return;
            }
        }
    }

    /// <summary>Makes one access of KVM's emulator, of up to 8 bytes within a page, from or to memory.</summary>
    private void CompleteAccess(VirtualCpu cpu, in VcpuExit exit, FaultEngine engine)
    {
        bool isDone = false;
        while (!isDone && engine.Resolve(exit.Address, _mayFinish))
        {
            isDone = exit.Kind == VcpuExitKind.MmioRead ? Memory.TryRead(exit.Address, cpu.Data(exit)) : Memory.TryWrite(exit.Address, cpu.Data(exit));
        }
    }

    private void Handle(int vcpu, VirtualCpu cpu, in VcpuExit exit)
    {
        switch (exit.Kind)
        {
            case VcpuExitKind.PortWrite when exit is { Address: GuestPort.Console, Size: 1 }:
                Print(vcpu, cpu.Data(exit));
                break;

            case VcpuExitKind.PortWrite when exit is { Address: GuestPort.Report, Size: 4 }:
                Report(vcpu, BinaryPrimitives.ReadUInt32LittleEndian(cpu.Data(exit)));
                break;

            // The kick that comes with the end interrupts the next run, which completes the instruction.
            case VcpuExitKind.PortWrite when exit is { Address: GuestPort.Exit, Size: 4 }:
                End(vcpu, BinaryPrimitives.ReadInt32LittleEndian(cpu.Data(exit)));
                break;

            case VcpuExitKind.PortRead:
                cpu.Data(exit).Fill(0xFF);
                break;

            case VcpuExitKind.PortWrite:
                break;

            case VcpuExitKind.DirtyRingFull:
                _dirtyRings!.Empty(cpu.DirtyRing!);
                break;

            case VcpuExitKind.Fault:
                Fail(vcpu, $"accessed memory that this process can't access, and no page that its instruction can touch is armed. {RegisterText.Of(cpu)}");
                break;

            // An access outside memory, or one to memory that KVM's emulator could not make: what it reads must not be made up.
            case VcpuExitKind.MmioRead or VcpuExitKind.MmioWrite:
                Fail(vcpu, $"{(IsMemory(exit.Address) ? "could not access its memory" : "accessed what is not memory")}: {exit.Size} bytes at guest physical address 0x{exit.Address:x}. {RegisterText.Of(cpu)}");
                break;

            case VcpuExitKind.Halt when ExceptionTables.TryDescribe(Memory, cpu) is { } exception:
                Fail(vcpu, exception);
                break;

            case VcpuExitKind.Halt:
                Fail(vcpu, $"halted, and there are no interrupts to wake it. {RegisterText.Of(cpu)}");
                break;

            default:
                Fail(vcpu, $"stopped: {exit.Kind} (exit reason {exit.Reason}, value 0x{exit.Value:x}, address 0x{exit.Address:x}). {RegisterText.Of(cpu)}");
                break;
        }
    }

    private bool IsMemory(ulong gpa) => Memory.Regions.Any(region => gpa - region.Gpa < region.Length);
}
