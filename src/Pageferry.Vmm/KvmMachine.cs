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

    private KvmMachine(Kvm.Kvm kvm, VirtualMachine virtualMachine, GuestMemory memory, int vcpuCount)
        : base(memory, vcpuCount)
    {
        _kvm = kvm;
        _virtualMachine = virtualMachine;
        for (int i = 0; i < memory.Regions.Count; i++)
        {
            GuestRegion region = memory.Regions[i];
            virtualMachine.SetMemoryRegion((uint)i, region.Gpa, region.Length, memory.GuestViewAddress(region.Gpa));
        }

        _vcpus = [.. Enumerable.Range(0, vcpuCount).Select(virtualMachine.CreateVcpu)];
        _loaded = new VcpuRegisters[vcpuCount];
    }

    /// <inheritdoc/>
    public override MachineHost Host => MachineHost.Kvm;

    /// <summary>Makes a machine with a guest loaded, ready to start.</summary>
    /// <param name="configuration">What it is made of.</param>
    /// <param name="image">The guest.</param>
    /// <returns>The machine, which the caller disposes.</returns>
    /// <exception cref="ArgumentException">The configuration makes no sense; the message says what.</exception>
    /// <exception cref="InvalidDataException">The guest does not fit.</exception>
    /// <exception cref="LinuxException">KVM or the memory is refused.</exception>
    public static KvmMachine Create(MachineConfiguration configuration, GuestImage image)
    {
        CheckMemory(configuration.MemorySize);
        if (configuration.VcpuCount is < 1 or > BootLayout.MostVcpus)
        {
            // Before the boot layout is written: it has a place for each vCPU.
            throw new ArgumentException($"A machine has 1 to {BootLayout.MostVcpus} vCPUs, not {configuration.VcpuCount}.", nameof(configuration));
        }

        GuestMemory memory = GuestMemory.Create(configuration.MemorySize, configuration.Backing);
        try
        {
            image.Load(memory);
            BootLayout.Write(memory, configuration, image.End);
        }
        catch
        {
            memory.Dispose();
            throw;
        }

        KvmMachine machine = Create(memory, configuration.VcpuCount);
        byte[] cpuid = machine._kvm.GetSupportedCpuid();
        foreach (VirtualCpu vcpu in machine._vcpus)
        {
            BootLayout.Prepare(vcpu, cpuid, configuration.Privilege, image.Entry);
        }

        return machine;
    }

    /// <summary>Makes a machine around memory, for a state that is loaded next.</summary>
    /// <param name="memory">The memory; owned by the machine, also when this fails.</param>
    /// <param name="vcpuCount">How many vCPUs.</param>
    /// <returns>The machine, which the caller disposes.</returns>
    /// <exception cref="ArgumentException">More vCPUs than KVM or the boot layout allows.</exception>
    /// <exception cref="LinuxException">KVM is refused.</exception>
    public static KvmMachine Create(GuestMemory memory, int vcpuCount)
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
            return new KvmMachine(kvm, virtualMachine, memory, vcpuCount);
        }
        catch
        {
            virtualMachine?.Dispose();
            kvm?.Dispose();
            memory.Dispose();
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

    private protected override void Run(int vcpu)
    {
        VirtualCpu cpu = _vcpus[vcpu];
        cpu.BindToCurrentThread();
        while (true)
        {
            VcpuExit exit = cpu.Run();
            if (exit.Kind != VcpuExitKind.Interrupted)
            {
                SeeFirstInstruction();
                Handle(vcpu, cpu, exit);
                continue;
            }

            if (AwaitsFirstInstruction && cpu.Registers != _loaded[vcpu])
            {
                SeeFirstInstruction();
            }

            // Here and nowhere else: a run that was interrupted has completed the exit before it, so the state is whole.
            if (!Park(vcpu))
            {
                return;
            }
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

    private void Handle(int vcpu, VirtualCpu cpu, in VcpuExit exit)
    {
        switch (exit.Kind)
        {
            case VcpuExitKind.PortWrite when exit is { Address: GuestPort.Console, Size: 1 }:
                foreach (byte character in cpu.Data(exit))
                {
                    Print(vcpu, character);
                }

                break;

            case VcpuExitKind.PortWrite when exit is { Address: GuestPort.Report, Size: 4 }:
                Report(vcpu, BinaryPrimitives.ReadUInt32LittleEndian(cpu.Data(exit)));
                break;

            case VcpuExitKind.PortWrite when exit is { Address: GuestPort.Exit, Size: 4 }:
                int code = BinaryPrimitives.ReadInt32LittleEndian(cpu.Data(exit));
                if (code == 1)
                {
                    ReportWrong();
                }

                End(vcpu, code);

                // The exit's instruction is completed by the run that the kick interrupts.
                cpu.Kick();
                break;

            // Nobody is there: as on a PC's bus, reads are all ones and writes are lost.
            case VcpuExitKind.PortRead or VcpuExitKind.MmioRead:
                cpu.Data(exit).Fill(0xFF);
                break;

            case VcpuExitKind.PortWrite or VcpuExitKind.MmioWrite:
                break;

            default:
                VcpuRegisters at = cpu.Registers;
                Fail(vcpu, $"stopped: {exit.Kind} (exit reason {exit.Reason}, value 0x{exit.Value:x}, address 0x{exit.Address:x}) at RIP 0x{at.Rip:x}, RSP 0x{at.Rsp:x}, RAX 0x{at.Rax:x}, RFLAGS 0x{at.Rflags:x}.");
                cpu.Kick();
                break;
        }
    }
}
