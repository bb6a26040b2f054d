using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Pageferry.Linux;

namespace Pageferry.Kvm;

/// <summary>A vCPU. One thread runs it and reads and writes its state; any thread may kick it.</summary>
/// <remarks>
/// A kick needs no signal handler in the process: its signal is blocked in the vCPU's thread, let through during <c>KVM_RUN</c> only
/// (<c>KVM_SET_SIGNAL_MASK</c>), and taken off the queue afterwards.
/// </remarks>
public sealed class VirtualCpu : IDisposable
{
    /// <summary>
    /// The kick's signal: a real-time signal that neither the C library (32, 33) nor the .NET runtime (34, SIGRTMIN) uses.
    /// </summary>
    private const int KickSignal = 50;

    private const ulong KickMask = 1UL << (KickSignal - 1);

    private const string LapicName = "local APIC";
    private const string RegistersName = "registers";
    private const string SystemRegistersName = "system registers";

    /// <summary>All that <see cref="VcpuContext"/> holds.</summary>
    private const ulong ContextFields = Interop.KVM_SYNC_X86_REGS | Interop.KVM_SYNC_X86_SREGS | Interop.KVM_SYNC_X86_EVENTS;

    private readonly MappedRegion _run;
    private readonly bool _canSynchronize;
    private VcpuContext _context;
    private bool _synchronizes;
    private bool _isSynchronized;
    private int _thread;

    internal VirtualCpu(int id, FileDescriptor descriptor, int mapBytes, int synchronizable, int xsave2, int dirtyRingEntries)
    {
        Id = id;
        Descriptor = descriptor;
        XsaveBytes = Math.Max(Interop.XsaveBytes, xsave2);
        _canSynchronize = ((ulong)synchronizable & ContextFields) == ContextFields;
        _run = MappedRegion.MapShared(descriptor, 0, (ulong)mapBytes);
        try
        {
            DirtyRing = dirtyRingEntries > 0 ? new DirtyRing(descriptor, dirtyRingEntries) : null;
        }
        catch
        {
            _run.Dispose();
            throw;
        }
    }

    /// <summary>Its number.</summary>
    public int Id { get; }

    /// <summary>The vCPU's file descriptor.</summary>
    public FileDescriptor Descriptor { get; }

    /// <summary>The length of <see cref="ReadXsave"/>'s area in bytes.</summary>
    public int XsaveBytes { get; }

    /// <summary>The pages that it wrote; null unless <see cref="VirtualMachine.TryEnableDirtyRings"/> succeeded before it was made.</summary>
    public DirtyRing? DirtyRing { get; }

    /// <summary>The data of the last port or MMIO exit: what the guest wrote, or where what it reads is put before the next run.</summary>
    /// <param name="exit">The exit that <see cref="Run"/> returned last.</param>
    /// <returns>Count times size bytes for a port, size bytes for MMIO; valid until the next run.</returns>
    public Span<byte> Data(in VcpuExit exit) => exit.Kind switch
    {
        VcpuExitKind.PortRead or VcpuExitKind.PortWrite =>
            _run.Span(BinaryPrimitives.ReadUInt64LittleEndian(_run.Span(Interop.RunIoDataOffset, sizeof(ulong))), exit.Size * exit.Count),
        VcpuExitKind.MmioRead or VcpuExitKind.MmioWrite => _run.Span(Interop.RunMmioData, exit.Size),
        _ => [],
    };

    /// <summary>Makes the calling thread the vCPU's own. Called once by the thread that is going to run it.</summary>
    /// <exception cref="LinuxException">The kernel refused the signal mask.</exception>
    public void BindToCurrentThread()
    {
        Span<byte> mask = stackalloc byte[Interop.SignalMaskHeaderBytes + sizeof(ulong)];
        BinaryPrimitives.WriteUInt32LittleEndian(mask, sizeof(ulong));

        // SAFETY: both sets are local and as long as the C library's sigset_t.
        unsafe
        {
            ulong* set = stackalloc ulong[Interop.SigsetWords];
            ulong* old = stackalloc ulong[Interop.SigsetWords];
            new Span<ulong>(set, Interop.SigsetWords).Clear();
            set[0] = KickMask;
            _ = Interop.PthreadSigmask(Interop.SIG_BLOCK, set, old);
            BinaryPrimitives.WriteUInt64LittleEndian(mask[Interop.SignalMaskHeaderBytes..], old[0] & ~KickMask);
        }

        if (Interop.Ioctl(Descriptor, Interop.KVM_SET_SIGNAL_MASK, mask) != 0)
        {
            throw LinuxException.FromLastError($"set the signal mask of vCPU {Id}");
        }

        Volatile.Write(ref _thread, Interop.Gettid());
    }

    /// <summary>
    /// Makes the run that is under way, or else the next one, return <see cref="VcpuExitKind.Interrupted"/>. For any thread; never lost.
    /// One kick may interrupt two runs: one by its flag and the next by its signal.
    /// </summary>
    public void Kick()
    {
        // Set first: a run that has not entered the guest yet sees it, and one that has gets the signal.
        Volatile.Write(ref _run.Span(Interop.RunImmediateExit, 1)[0], 1);
        int thread = Volatile.Read(ref _thread);
        if (thread != 0)
        {
            _ = Interop.Tgkill(Environment.ProcessId, thread, KickSignal);
        }
    }

    /// <summary>Runs the guest until it exits or is interrupted (<c>KVM_RUN</c>). Only the vCPU's own thread calls this.</summary>
    /// <returns>Why it stopped.</returns>
    /// <exception cref="LinuxException">The kernel refused to run the vCPU.</exception>
    public VcpuExit Run()
    {
        int result = Interop.Ioctl(Descriptor.Number, Interop.KVM_RUN, 0);
        _isSynchronized = _synchronizes;
        if (result == 0)
        {
            return ReadExit();
        }

        switch ((Errno)Marshal.GetLastPInvokeError())
        {
            case Errno.EINTR:
                TakeKick();
                return new VcpuExit(VcpuExitKind.Interrupted, 0);

            // The one error that comes with an exit reason, where the kernel knows the address.
            case Errno.EFAULT:
                VcpuExit exit = ReadExit();
                return exit.Kind == VcpuExitKind.MemoryFault ? exit : new VcpuExit(VcpuExitKind.Fault, exit.Reason);

            default:
                throw LinuxException.FromLastError($"run vCPU {Id}");
        }
    }

    /// <summary>The general registers (<c>KVM_GET_REGS</c>, <c>KVM_SET_REGS</c>).</summary>
    public VcpuRegisters Registers
    {
        get => Get<VcpuRegisters>(Interop.KVM_GET_REGS, RegistersName);
        set => Set(Interop.KVM_SET_REGS, value, RegistersName);
    }

    /// <summary>The segments, tables and control registers (<c>KVM_GET_SREGS</c>, <c>KVM_SET_SREGS</c>).</summary>
    public VcpuSystemRegisters SystemRegisters
    {
        get => Get<VcpuSystemRegisters>(Interop.KVM_GET_SREGS, SystemRegistersName);
        set => Set(Interop.KVM_SET_SREGS, value, SystemRegistersName);
    }

    /// <summary>
    /// The vector state that the guest may use (XCR0, by <c>KVM_GET_XCRS</c> and <c>KVM_SET_XCRS</c>): bit 0 x87, bit 1 SSE, bit 2 AVX.
    /// </summary>
    public ulong Xcr0
    {
        get
        {
            Span<byte> xcrs = stackalloc byte[Interop.XcrsBytes];
            GetRaw(Interop.KVM_GET_XCRS, xcrs, "XCRs");
            return BinaryPrimitives.ReadUInt64LittleEndian(xcrs[Interop.XcrsFirstValue..]);
        }

        set
        {
            // struct kvm_xcrs: one entry, XCR 0.
            Span<byte> xcrs = stackalloc byte[Interop.XcrsBytes];
            xcrs.Clear();
            xcrs[0] = 1;
            BinaryPrimitives.WriteUInt64LittleEndian(xcrs[Interop.XcrsFirstValue..], value);
            SetRaw(Interop.KVM_SET_XCRS, xcrs, "XCRs");
        }
    }

    /// <summary>
    /// Has the kernel leave the context in the vCPU's shared memory at every exit (<c>KVM_CAP_SYNC_REGS</c>), so that <see cref="ReadContext"/> makes no
    /// system call. For vCPUs whose exits are mostly read; the others would pay for it.
    /// </summary>
    /// <returns>Whether this kernel can; if not, <see cref="ReadContext"/> asks for the registers as without it.</returns>
    public bool TrySynchronizeContext()
    {
        if (_canSynchronize)
        {
            _synchronizes = true;
            BinaryPrimitives.WriteUInt64LittleEndian(_run.Span(Interop.RunValidRegisters, sizeof(ulong)), ContextFields);
        }

        return _canSynchronize;
    }

    /// <summary>
    /// What the vCPU was about to do when it stopped: from its shared memory after <see cref="TrySynchronizeContext"/>, else by <c>KVM_GET_REGS</c>,
    /// <c>KVM_GET_SREGS</c> and <c>KVM_GET_VCPU_EVENTS</c>. Allocates nothing. Only the vCPU's own thread calls this.
    /// </summary>
    /// <returns>The context; valid until the next run or the next call.</returns>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public ref readonly VcpuContext ReadContext()
    {
        if (_isSynchronized)
        {
            return ref MemoryMarshal.AsRef<VcpuContext>(_run.Span(Interop.RunSynchronized, Unsafe.SizeOf<VcpuContext>()));
        }

        GetRaw(Interop.KVM_GET_REGS, Bytes(ref _context.Registers), RegistersName);
        GetRaw(Interop.KVM_GET_SREGS, Bytes(ref _context.SystemRegisters), SystemRegistersName);
        GetRaw(Interop.KVM_GET_VCPU_EVENTS, Bytes(ref _context.Events), "events");
        return ref _context;
    }

    /// <summary>Reads the FPU and vector registers (<c>KVM_GET_XSAVE2</c>, or <c>KVM_GET_XSAVE</c> where the kernel lacks it). Allocates nothing.</summary>
    /// <param name="area">Where to: <see cref="XsaveBytes"/> bytes, filled as an XSAVE area of the standard format.</param>
    /// <exception cref="ArgumentException">It is shorter.</exception>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public void ReadXsave(Span<byte> area)
    {
        if (area.Length < XsaveBytes)
        {
            throw new ArgumentException($"The XSAVE area of vCPU {Id} has {XsaveBytes} bytes; {area.Length} are not enough.", nameof(area));
        }

        GetRaw(XsaveBytes > Interop.XsaveBytes ? Interop.KVM_GET_XSAVE2 : Interop.KVM_GET_XSAVE, area, "XSAVE area");
    }

    /// <summary>How often the guest's time stamp counter ticks (<c>KVM_GET_TSC_KHZ</c>).</summary>
    /// <returns>Ticks per second.</returns>
    /// <exception cref="LinuxException">EIO: the host's counter is not stable.</exception>
    public long GetTscFrequency()
    {
        int kilohertz = Interop.Ioctl(Descriptor.Number, Interop.KVM_GET_TSC_KHZ, 0);
        return kilohertz > 0 ? kilohertz * 1000L : throw LinuxException.FromLastError($"ask for the frequency of vCPU {Id}'s time stamp counter");
    }

    /// <summary>Shows the guest CPUID leaves (<c>KVM_SET_CPUID2</c>); before the first run.</summary>
    /// <param name="cpuid">A <c>struct kvm_cpuid2</c> with its entries.</param>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public void SetCpuid(byte[] cpuid) => SetRaw(Interop.KVM_SET_CPUID2, cpuid, "CPUID leaves");

    /// <summary>Reads an MSR (<c>KVM_GET_MSRS</c>).</summary>
    /// <param name="index">Its number.</param>
    /// <param name="value">Its value.</param>
    /// <returns>False where this KVM has no such MSR.</returns>
    public bool TryGetMsr(uint index, out ulong value)
    {
        Span<byte> msrs = stackalloc byte[Interop.MsrsHeaderBytes + Interop.MsrEntryBytes];
        msrs.Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(msrs, 1);
        BinaryPrimitives.WriteUInt32LittleEndian(msrs[Interop.MsrsHeaderBytes..], index);
        bool found = Interop.Ioctl(Descriptor, Interop.KVM_GET_MSRS, msrs) == 1;
        value = BinaryPrimitives.ReadUInt64LittleEndian(msrs[(Interop.MsrsHeaderBytes + Interop.MsrEntryData)..]);
        return found;
    }

    /// <summary>Reads the local APIC (<c>KVM_GET_LAPIC</c>).</summary>
    /// <returns>A <c>struct kvm_lapic_state</c>: the APIC's register page, 1024 bytes.</returns>
    /// <exception cref="LinuxException">EINVAL: the virtual machine has no interrupt controllers in the kernel.</exception>
    public byte[] GetLapic()
    {
        var lapic = new byte[Interop.LapicBytes];
        GetRaw(Interop.KVM_GET_LAPIC, lapic, LapicName);
        return lapic;
    }

    /// <summary>Sets the local APIC (<c>KVM_SET_LAPIC</c>), after the system registers: their APIC base says in which mode its id is.</summary>
    /// <param name="lapic">What <see cref="GetLapic"/> returned.</param>
    /// <exception cref="ArgumentException">It has another length.</exception>
    /// <exception cref="LinuxException">EINVAL: the virtual machine has no interrupt controllers in the kernel, or the APIC is another vCPU's.</exception>
    public void SetLapic(byte[] lapic)
    {
        if (lapic.Length != Interop.LapicBytes)
        {
            throw new ArgumentException($"A local APIC has {Interop.LapicBytes} bytes, not {lapic.Length}.", nameof(lapic));
        }

        SetRaw(Interop.KVM_SET_LAPIC, lapic, LapicName);
    }

    /// <summary>Frees the vCPU.</summary>
    public void Dispose()
    {
        DirtyRing?.Dispose();
        _run.Dispose();
        Descriptor.Dispose();
    }

    internal void GetRaw(nuint request, Span<byte> structure, string what)
    {
        if (Interop.Ioctl(Descriptor, request, structure) < 0)
        {
            throw LinuxException.FromLastError($"read the {what} of vCPU {Id}");
        }
    }

    internal void SetRaw(nuint request, Span<byte> structure, string what)
    {
        _isSynchronized = false;
        if (Interop.Ioctl(Descriptor, request, structure) < 0)
        {
            throw LinuxException.FromLastError($"set the {what} of vCPU {Id}");
        }
    }

    private T Get<T>(nuint request, string what)
        where T : unmanaged
    {
        T value = default;
        GetRaw(request, Bytes(ref value), what);
        return value;
    }

    private void Set<T>(nuint request, T value, string what)
        where T : unmanaged => SetRaw(request, Bytes(ref value), what);

    private static Span<byte> Bytes<T>(ref T value)
        where T : unmanaged => MemoryMarshal.AsBytes(new Span<T>(ref value));

    private VcpuExit ReadExit() => VcpuExit.Read(_run.Span(0, Interop.RunExitBytes));

    /// <summary>Takes the kick off: its flag first, so that a kick that comes now interrupts the next run.</summary>
    private void TakeKick()
    {
        Volatile.Write(ref _run.Span(Interop.RunImmediateExit, 1)[0], 0);

        // SAFETY: the set is local and as long as the C library's sigset_t; the timeout is two local words.
        unsafe
        {
            ulong* set = stackalloc ulong[Interop.SigsetWords];
            long* noTime = stackalloc long[2];
            new Span<ulong>(set, Interop.SigsetWords).Clear();
            set[0] = KickMask;
            noTime[0] = 0;
            noTime[1] = 0;
            while (Interop.Sigtimedwait(set, null, noTime) == KickSignal)
            {
            }
        }
    }
}
