using System.Buffers.Binary;
using Pageferry.Kvm;
using Pageferry.Memory;
using Pageferry.Vmm;

namespace Pageferry.Cli;

/// <summary>A KVM guest whose vCPUs touch memory: its own small memory, and behind it the slices, each in a memory slot of its own.</summary>
internal sealed class PagingMachine : IDisposable
{
    /// <summary>Where the guest's own memory ends and the slices begin: a multiple of the largest page.</summary>
    private const ulong SlicesAt = BootLayout.LeastMemory;

    /// <summary>Where the vCPUs' counters lie.</summary>
    private const ulong CountersAt = 0x20_0000;

    private const ulong CountersBytes = TouchGuest.Counters * sizeof(uint);

    private readonly PagingOptions _options;
    private readonly Pageferry.Kvm.Kvm _kvm;
    private readonly List<PagingSlice> _slices = [];
    private readonly List<VirtualCpu> _vcpus = [];
    private GuestMemory? _memory;
    private VirtualMachine? _virtualMachine;

    /// <summary>Makes the guest, ready to run.</summary>
    /// <param name="options">What is measured.</param>
    /// <exception cref="CommandException">KVM can't have so many vCPUs.</exception>
    /// <exception cref="Pageferry.Linux.LinuxException">KVM, userfaultfd or the memory is refused.</exception>
    internal PagingMachine(PagingOptions options)
    {
        _options = options;
        _kvm = Pageferry.Kvm.Kvm.Open();
        try
        {
            if (options.Vcpus > _kvm.MaxVcpus)
            {
                throw new CommandException($"KVM allows {_kvm.MaxVcpus} virtual CPUs here, not {options.Vcpus}.", ExitCode.Usage);
            }

            _virtualMachine = _kvm.CreateVirtualMachine();
            MakeMemory();
            MakeSlices();
            MakeVcpus();
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>The vCPUs.</summary>
    internal IReadOnlyList<VirtualCpu> Vcpus => _vcpus;

    /// <summary>The memory that the vCPUs touch.</summary>
    internal IReadOnlyList<PagingSlice> Slices => _slices;

    /// <summary>What finds the faults of a vCPU that come as exits.</summary>
    /// <param name="vcpu">The vCPU.</param>
    internal VcpuFaults FaultsOf(VirtualCpu vcpu) => new(vcpu, [.. _slices.Select(slice => slice.Engine!)], [_memory!]);

    /// <summary>How often each latency was measured by the guest.</summary>
    /// <returns>A counter each; see <see cref="TouchGuest.LowestOf"/>.</returns>
    internal long[] ReadCounters()
    {
        var counters = new long[TouchGuest.Counters];
        Span<byte> ofVcpu = stackalloc byte[(int)CountersBytes];
        for (int vcpu = 0; vcpu < _vcpus.Count; vcpu++)
        {
            _memory!.Read(CountersOf(vcpu), ofVcpu);
            for (int i = 0; i < counters.Length; i++)
            {
                counters[i] += BinaryPrimitives.ReadUInt32LittleEndian(ofVcpu[(i * sizeof(uint))..]);
            }
        }

        return counters;
    }

    /// <summary>Whether a vCPU that has ended read the content of each of its pages.</summary>
    /// <param name="vcpu">Its number.</param>
    internal bool HasReadAll(int vcpu) =>
        TouchGuest.SumOf(_vcpus[vcpu].Registers) == PagingContent.Sum(FirstPageOf(vcpu), _options.PagesPerVcpu);

    /// <summary>Unmaps the slices, which lets vCPUs that wait in them go, and their threads end.</summary>
    internal void DisposeSlices()
    {
        _slices.ForEach(slice => slice.Dispose());
        _slices.Clear();
    }

    /// <summary>Frees all. No vCPU runs any more.</summary>
    public void Dispose()
    {
        DisposeSlices();
        _vcpus.ForEach(vcpu => vcpu.Dispose());
        _virtualMachine?.Dispose();
        _kvm.Dispose();
        _memory?.Dispose();
    }

    private static ulong CountersOf(int vcpu) => CountersAt + ((ulong)vcpu * CountersBytes);

    private ulong FirstPageOf(int vcpu) => _options.IsOverlapping ? 0 : (ulong)vcpu * _options.PagesPerVcpu;

    private void MakeMemory()
    {
        _memory = GuestMemory.Create(BootLayout.LeastMemory);
        byte[] code = TouchGuest.Assemble(BootLayout.GuestBase);
        _memory.Write(BootLayout.GuestBase, code);
        BootLayout.Write(
            _memory,
            new MachineConfiguration(_memory.Size, _options.Vcpus),
            BootLayout.GuestBase + (ulong)code.Length,
            SlicesAt + (ulong)_options.TotalBytes);
        _virtualMachine!.SetMemoryRegion(0, 0, _memory.Size, _memory.GuestViewAddress(0));
    }

    private void MakeSlices()
    {
        int count = _options.IsSingleUserfaultfd ? 1 : _options.Vcpus;
        ulong bytes = (ulong)_options.TotalBytes / (ulong)count;
        for (int i = 0; i < count; i++)
        {
            ulong gpa = SlicesAt + ((ulong)i * bytes);
            int firstReader = _options.Vcpus + (i * _options.Readers);
            int[] cpus = [.. Enumerable.Range(firstReader, _options.Readers).Select(_options.CpuOf).OfType<int>()];
            var slice = new PagingSlice(_options, gpa, bytes, (ulong)i * (bytes / Page.Size), cpus.Length > 0 ? cpus : null);
            _slices.Add(slice);
            _virtualMachine!.SetMemoryRegion((uint)i + 1, gpa, bytes, slice.Memory.GuestViewAddress(gpa));
        }
    }

    private void MakeVcpus()
    {
        byte[] cpuid = _kvm.GetSupportedCpuid();
        for (int i = 0; i < _options.Vcpus; i++)
        {
            VirtualCpu vcpu = _virtualMachine!.CreateVcpu(i);
            _vcpus.Add(vcpu);
            BootLayout.Prepare(vcpu, cpuid, GuestPrivilege.User, BootLayout.GuestBase);
            ulong slice = SlicesAt + (FirstPageOf(i) * Page.Size);
            vcpu.Registers = TouchGuest.Begin(vcpu.Registers, slice, _options.PagesPerVcpu, CountersOf(i), _options.IsOverlapping ? i + 1 : 0);
        }
    }
}
