using System.Runtime.InteropServices;
using Pageferry.Linux;

namespace Pageferry.Kvm;

/// <summary>A virtual machine: memory slots and vCPUs.</summary>
public sealed class VirtualMachine : IDisposable
{
    private readonly Lock _slotsLock = new();
    private readonly Dictionary<uint, MemorySlot> _slots = [];

    internal VirtualMachine(Kvm kvm, FileDescriptor descriptor)
    {
        Kvm = kvm;
        Descriptor = descriptor;
    }

    /// <summary>The subsystem it was made by.</summary>
    public Kvm Kvm { get; }

    /// <summary>The virtual machine's file descriptor.</summary>
    public FileDescriptor Descriptor { get; }

    /// <summary>Whether interrupt controllers are in the kernel: <see cref="CreateIrqchip"/> was called.</summary>
    public bool HasIrqchip { get; private set; }

    /// <summary>Whether a dirty page stays logged until <see cref="DirtyLog.Clear()"/>: <see cref="TryEnableManualDirtyLog"/> succeeded.</summary>
    public bool HasManualDirtyLog { get; private set; }

    /// <summary>Entries of each vCPU's <see cref="DirtyRing"/>; 0 unless <see cref="TryEnableDirtyRings"/> succeeded.</summary>
    public int DirtyRingEntries { get; private set; }

    /// <summary>
    /// The clock that guests read by kvmclock (<c>KVM_GET_CLOCK</c>).
    /// </summary>
    /// <returns>The clock and, on Linux 5.16 and later, the host's own clocks at the same moment.</returns>
    /// <exception cref="LinuxException">ENOTTY: this architecture has none.</exception>
    public MachineClock GetClock()
    {
        Interop.kvm_clock_data data = default;
        int result;

        // SAFETY: the kernel fills a structure of the size that the request's number states.
        unsafe
        {
            result = Interop.Ioctl(Descriptor.Number, Interop.KVM_GET_CLOCK, &data);
        }

        return result == 0
            ? new MachineClock(data.clock, (ClockFlags)data.flags, data.realtime, data.host_tsc)
            : throw LinuxException.FromLastError("read a virtual machine's clock");
    }

    /// <summary>
    /// Sets the clock that guests read by kvmclock (<c>KVM_SET_CLOCK</c>). With <see cref="ClockFlags.Realtime"/> in its flags, the kernel adds the time that
    /// has passed since the clock was read, by the two hosts' CLOCK_REALTIME; a kernel before 5.16 can't, and there the clock goes on from where it was read.
    /// The other flags tell of the host that it was read on and are not set.
    /// </summary>
    /// <param name="clock">The clock; <c>with { Flags = ClockFlags.None }</c> it goes on from where it was read.</param>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public void SetClock(MachineClock clock)
    {
        ClockFlags settable = (ClockFlags)CheckExtension(KvmCapability.AdjustClock) & ClockFlags.Realtime;
        var data = new Interop.kvm_clock_data { clock = clock.Nanoseconds, flags = (uint)(clock.Flags & settable), realtime = clock.Realtime };
        int result;

        // SAFETY: the kernel reads a structure of the size that the request's number states.
        unsafe
        {
            result = Interop.Ioctl(Descriptor.Number, Interop.KVM_SET_CLOCK, &data);
        }

        if (result != 0)
        {
            throw LinuxException.FromLastError($"set a virtual machine's clock to {clock.Nanoseconds} ns");
        }
    }

    /// <summary>
    /// Puts the interrupt controllers into the kernel (<c>KVM_CREATE_IRQCHIP</c>): a local APIC for each vCPU, an IO-APIC and two PICs. Before the first vCPU.
    /// </summary>
    /// <exception cref="LinuxException">EEXIST: they are there. EINVAL: a vCPU was made before.</exception>
    public void CreateIrqchip()
    {
        if (Interop.Ioctl(Descriptor.Number, Interop.KVM_CREATE_IRQCHIP, 0) != 0)
        {
            throw LinuxException.FromLastError("create the interrupt controllers of a virtual machine", "They are created once, before the first vCPU.");
        }

        HasIrqchip = true;
    }

    /// <summary>
    /// Lets dirty pages stay logged until they are cleared (<c>KVM_ENABLE_CAP</c> with <c>KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2</c>), which reads a log of much
    /// memory without write-protecting all of it at once. Before a slot logs.
    /// </summary>
    /// <returns>Whether this kernel can; if not, reading a log clears it.</returns>
    /// <exception cref="LinuxException">The kernel knows it and refused.</exception>
    public bool TryEnableManualDirtyLog()
    {
        if ((CheckExtension(KvmCapability.ManualDirtyLogProtect) & Interop.KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE) == 0)
        {
            return false;
        }

        if (EnableCapability(KvmCapability.ManualDirtyLogProtect, Interop.KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE) != 0)
        {
            throw LinuxException.FromLastError("let a virtual machine's dirty pages stay logged until they are cleared");
        }

        HasManualDirtyLog = true;
        return true;
    }

    /// <summary>
    /// Gives each vCPU a ring of the pages it wrote (<c>KVM_ENABLE_CAP</c> with <c>KVM_CAP_DIRTY_LOG_RING_ACQ_REL</c>, or <c>KVM_CAP_DIRTY_LOG_RING</c> before
    /// Linux 6.1): what was written is found without going over a bit for every page. Once, and before the first vCPU. There are no dirty logs then.
    /// </summary>
    /// <param name="entries">Entries of each ring, a power of two: 1024 at least, 65536 at most. KVM keeps some hundreds of them free.</param>
    /// <returns>Whether this kernel has rings.</returns>
    /// <exception cref="LinuxException">EINVAL: there is a vCPU, there are rings already, or the kernel wants another size. E2BIG: too many entries.</exception>
    public bool TryEnableDirtyRings(int entries)
    {
        KvmCapability capability = CheckExtension(KvmCapability.DirtyLogRingAcquireRelease) > 0 ? KvmCapability.DirtyLogRingAcquireRelease : KvmCapability.DirtyLogRing;
        int mostBytes = CheckExtension(capability);
        if (mostBytes == 0)
        {
            return false;
        }

        if (EnableCapability(capability, (ulong)entries * Interop.DirtyRingEntryBytes) != 0)
        {
            throw LinuxException.FromLastError(
                $"give each vCPU a dirty ring of {entries} entries", $"It is done once, before the first vCPU; {mostBytes / Interop.DirtyRingEntryBytes} entries are the most here.");
        }

        DirtyRingEntries = entries;
        return true;
    }

    /// <summary>
    /// Says what becomes of an instruction that KVM's emulator can't fetch or does not know (<c>KVM_ENABLE_CAP</c> with
    /// <c>KVM_CAP_EXIT_ON_EMULATION_FAILURE</c>): an invalid opcode exception in the guest, as from the beginning, or a
    /// <see cref="VcpuExitKind.InternalError"/> that leaves the guest at the instruction. No vCPU runs meanwhile.
    /// </summary>
    /// <param name="exits">Whether it is an exit.</param>
    /// <returns>Whether this kernel can; if not, it stays an exception.</returns>
    /// <exception cref="LinuxException">The kernel knows it and refused.</exception>
    public bool TrySetEmulationExits(bool exits)
    {
        if (CheckExtension(KvmCapability.ExitOnEmulationFailure) <= 0)
        {
            return false;
        }

        return EnableCapability(KvmCapability.ExitOnEmulationFailure, exits ? 1UL : 0) == 0
            ? true
            : throw LinuxException.FromLastError("say whether an instruction that can't be emulated is an exit");
    }

    /// <summary>
    /// Lets the pages that were taken out of dirty rings be told again when they are written (<c>KVM_RESET_DIRTY_RINGS</c>), and makes room in the rings. A
    /// page's content is read after that.
    /// </summary>
    /// <returns>How many entries were reset: all that were taken, or fewer when a signal came (Linux 6.16), and then it is called again.</returns>
    /// <exception cref="LinuxException">EINVAL: there are no rings.</exception>
    public int ResetDirtyRings()
    {
        int reset = Interop.Ioctl(Descriptor.Number, Interop.KVM_RESET_DIRTY_RINGS, 0);
        return reset >= 0 ? reset : throw LinuxException.FromLastError("reset the dirty rings of a virtual machine", "They are enabled before the first vCPU is made.");
    }

    /// <summary>Makes the dirty log of a slot; nothing is asked of the kernel before <see cref="DirtyLog.Read"/>.</summary>
    /// <param name="slot">The number of a slot that has <see cref="MemoryRegionFlags.LogDirtyPages"/>, now or when the log is read.</param>
    /// <returns>The log, which the caller disposes before the virtual machine.</returns>
    /// <exception cref="ArgumentException">There is no such slot.</exception>
    public DirtyLog CreateDirtyLog(uint slot)
    {
        lock (_slotsLock)
        {
            return _slots.TryGetValue(slot, out MemorySlot found)
                ? new DirtyLog(this, found)
                : throw new ArgumentException($"There is no slot {slot} whose writes could be logged; there are {_slots.Count} slots.", nameof(slot));
        }
    }

    /// <summary><c>KVM_CHECK_EXTENSION</c> on the virtual machine.</summary>
    /// <param name="capability">The capability.</param>
    /// <returns>0 when it is not there; else 1 or a number that belongs to it.</returns>
    public int CheckExtension(KvmCapability capability) => Math.Max(0, Interop.Ioctl(Descriptor.Number, Interop.KVM_CHECK_EXTENSION, (nint)capability));

    /// <summary>Puts memory of this process into the guest's physical address space (<c>KVM_SET_USER_MEMORY_REGION</c>).</summary>
    /// <param name="slot">The slot's number; an existing slot is changed, or deleted by a length of 0.</param>
    /// <param name="gpa">The first guest physical address; a page multiple.</param>
    /// <param name="length">Bytes; a page multiple.</param>
    /// <param name="address">The first address in this process; a page multiple. It must stay mapped as long as the slot is there.</param>
    /// <param name="flags">What the slot can do.</param>
    /// <exception cref="LinuxException">EINVAL: the range or the slot's number makes no sense, or the slot has another length. EEXIST: it overlaps another slot.</exception>
    public void SetMemoryRegion(uint slot, ulong gpa, ulong length, ulong address, MemoryRegionFlags flags = MemoryRegionFlags.None)
    {
        var region = new Interop.kvm_userspace_memory_region
        {
            slot = slot,
            flags = (uint)flags,
            guest_phys_addr = gpa,
            memory_size = length,
            userspace_addr = address,
        };
        lock (_slotsLock)
        {
            int result;

            // SAFETY: the kernel reads a structure of the size that the request's number states.
            unsafe
            {
                result = Interop.Ioctl(Descriptor.Number, Interop.KVM_SET_USER_MEMORY_REGION, &region);
            }

            if (result != 0)
            {
                throw LinuxException.FromLastError($"give the guest {length} bytes of memory at guest physical address 0x{gpa:x} in slot {slot}");
            }

            if (length == 0)
            {
                _ = _slots.Remove(slot);
            }
            else
            {
                _slots[slot] = new MemorySlot(slot, gpa, length);
            }
        }
    }

    /// <summary>
    /// Puts memory into the guest's physical address space, or changes a slot, so that a vCPU's access to a page whose bit is set is a
    /// <see cref="VcpuExitKind.MemoryFault"/> with <see cref="MemoryFaultFlags.Userfault"/> (<c>KVM_SET_USER_MEMORY_REGION2</c> with <c>KVM_MEM_USERFAULT</c>, of
    /// the KVM Userfault series).
    /// </summary>
    /// <param name="slot">The slot's number.</param>
    /// <param name="gpa">The first guest physical address; a page multiple.</param>
    /// <param name="length">Bytes; a page multiple.</param>
    /// <param name="address">The first address in this process; a page multiple.</param>
    /// <param name="bitmap">
    /// The address of a bitmap of 64-bit words, bit 0 for the first page, that stays mapped as long as the slot has it. KVM looks at it when it maps a page for
    /// the guest, so a bit that is set later does nothing to a page that is mapped.
    /// </param>
    /// <exception cref="LinuxException">EINVAL or ENOTTY: this kernel has no such slots, or the range makes no sense.</exception>
    public void SetUserfaultRegion(uint slot, ulong gpa, ulong length, ulong address, ulong bitmap)
    {
        var region = new Interop.kvm_userspace_memory_region2
        {
            slot = slot,
            flags = Interop.KVM_MEM_USERFAULT,
            guest_phys_addr = gpa,
            memory_size = length,
            userspace_addr = address,
            userfault_bitmap = bitmap,
        };
        lock (_slotsLock)
        {
            int result;

            // SAFETY: the kernel reads a structure of the size that the request's number states.
            unsafe
            {
                result = Interop.Ioctl(Descriptor.Number, Interop.KVM_SET_USER_MEMORY_REGION2, &region);
            }

            if (result != 0)
            {
                throw LinuxException.FromLastError(
                    $"give slot {slot}, {length} bytes at guest physical address 0x{gpa:x}, a bitmap of userfaults (KVM_MEM_USERFAULT)",
                    "It takes a kernel with the KVM Userfault series, which no release of Linux has.");
            }

            _slots[slot] = new MemorySlot(slot, gpa, length);
        }
    }

    /// <summary>Makes a guest_memfd (<c>KVM_CREATE_GUEST_MEMFD</c>): memory that KVM owns. It stays when the virtual machine is closed.</summary>
    /// <param name="length">Bytes; a page multiple.</param>
    /// <param name="flags">What it can do.</param>
    /// <returns>The file, which the caller disposes.</returns>
    /// <exception cref="LinuxException">EINVAL or ENOTTY: this kernel has none, or none with these flags.</exception>
    public FileDescriptor CreateGuestMemfd(ulong length, GuestMemfdFlags flags)
    {
        var create = new Interop.kvm_create_guest_memfd { size = length, flags = (ulong)flags };
        int fd;

        // SAFETY: the kernel reads a structure of the size that the request's number states.
        unsafe
        {
            fd = Interop.Ioctl(Descriptor.Number, Interop.KVM_CREATE_GUEST_MEMFD, &create);
        }

        return fd >= 0
            ? new FileDescriptor(fd)
            : throw LinuxException.FromLastError(
                $"create a guest_memfd of {length} bytes with {flags}",
                "It takes KVM_CREATE_GUEST_MEMFD (Linux 6.8), and to be mapped GUEST_MEMFD_FLAG_MMAP and GUEST_MEMFD_FLAG_INIT_SHARED (Linux 6.18).");
    }

    /// <summary>Makes a vCPU (<c>KVM_CREATE_VCPU</c>).</summary>
    /// <param name="id">Its number, which is its APIC id.</param>
    /// <returns>The vCPU, which the caller disposes before the virtual machine.</returns>
    /// <exception cref="LinuxException">EINVAL: beyond the limit. EEXIST: there is one of that number.</exception>
    public VirtualCpu CreateVcpu(int id)
    {
        int fd = Interop.Ioctl(Descriptor.Number, Interop.KVM_CREATE_VCPU, id);
        if (fd >= 0)
        {
            return new VirtualCpu(
                id, new FileDescriptor(fd), Kvm.VcpuMapBytes, CheckExtension(KvmCapability.SyncRegisters), CheckExtension(KvmCapability.Xsave2), DirtyRingEntries);
        }

        // Before the limit is asked for: that leaves an errno of its own.
        var errno = (Errno)Marshal.GetLastPInvokeError();
        throw new LinuxException($"create vCPU {id}", errno, $"KVM allows {Kvm.MaxVcpus} vCPUs here.");
    }

    /// <summary>Closes the virtual machine.</summary>
    public void Dispose() => Descriptor.Dispose();

    internal void ReadDirtyLog(DirtyLog log, ulong bitmap)
    {
        lock (_slotsLock)
        {
            CheckSlot(log);
            var get = new Interop.kvm_dirty_log { slot = log.Slot, dirty_bitmap = bitmap };

            // SAFETY: the kernel reads a structure of the size that the request's number states, and writes a bit for each page of the slot, rounded up to
            // 64, to the log's bitmap, which is as long: the slot is the one that the log was made for, and can't change under the lock.
            unsafe
            {
                if (Interop.Ioctl(Descriptor.Number, Interop.KVM_GET_DIRTY_LOG, &get) == 0)
                {
                    return;
                }
            }

            throw LinuxException.FromLastError($"read the dirty log of slot {log.Slot}", "The slot has to have MemoryRegionFlags.LogDirtyPages.");
        }
    }

    internal void ClearDirtyLog(DirtyLog log, ulong firstPage, uint pages, ulong bitmap)
    {
        lock (_slotsLock)
        {
            CheckSlot(log);
            var clear = new Interop.kvm_clear_dirty_log { slot = log.Slot, num_pages = pages, first_page = firstPage, dirty_bitmap = bitmap };

            // SAFETY: the kernel reads a structure of the size that the request's number states, and a bit for each of the pages, which lie in the bitmap.
            unsafe
            {
                if (Interop.Ioctl(Descriptor.Number, Interop.KVM_CLEAR_DIRTY_LOG, &clear) == 0)
                {
                    return;
                }
            }

            throw LinuxException.FromLastError($"clear {pages} pages of the dirty log of slot {log.Slot}", "The slot has to have MemoryRegionFlags.LogDirtyPages.");
        }
    }

    private int EnableCapability(KvmCapability capability, ulong argument)
    {
        // SAFETY: the kernel reads a structure of the size that the request's number states.
        unsafe
        {
            var enable = new Interop.kvm_enable_cap { cap = (uint)capability };
            enable.args[0] = argument;
            return Interop.Ioctl(Descriptor.Number, Interop.KVM_ENABLE_CAP, &enable);
        }
    }

    private void CheckSlot(DirtyLog log)
    {
        if (!_slots.TryGetValue(log.Slot, out MemorySlot slot) || slot != log.MemorySlot)
        {
            throw new InvalidOperationException($"Slot {log.Slot} is no longer the range that the dirty log was made for: make a new one.");
        }
    }
}
