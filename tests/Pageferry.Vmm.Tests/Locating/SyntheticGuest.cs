using System.Buffers.Binary;
using Iced.Intel;
using Pageferry.Kvm;

namespace Pageferry.Vmm.Tests.Locating;

/// <summary>How a synthetic guest's linear addresses become physical ones.</summary>
public enum Paging
{
    None,
    TwoLevels,
    TwoLevelsLarge,
    Pae,
    PaeLarge,
    FourLevels,
    FourLevels2M,
    FourLevels1G,
    FiveLevels,
}

/// <summary>
/// Registers, page tables and memory in a buffer, without a processor. Every linear page gets a physical one elsewhere, and remembers the tables that
/// lead to it.
/// </summary>
internal sealed class SyntheticGuest
{
    public const ulong PageBytes = 4096;
    public const ulong Accessed = 0x20;
    public const ulong Dirty = 0x40;

    private const ulong Root = 0x1000;
    private const ulong PresentWritableUser = 7;
    private const ulong Large = 0x80;
    private const int MemoryBytes = 8 << 20;

    private readonly byte[] _memory = new byte[MemoryBytes];
    private readonly Dictionary<ulong, ulong> _pages = [];
    private readonly Dictionary<ulong, List<ulong>> _tables = [];
    private readonly Paging _paging;
    private ulong _nextTable = Root + PageBytes;
    private ulong _nextPage = 4 << 20;

    public SyntheticGuest(Paging paging, int bitness, int privilege)
    {
        _paging = paging;
        Bitness = bitness;
        ref VcpuSystemRegisters system = ref Context.SystemRegisters;
        bool isLong = paging is Paging.FourLevels or Paging.FourLevels2M or Paging.FourLevels1G or Paging.FiveLevels;
        bool isPae = isLong || paging is Paging.Pae or Paging.PaeLarge;
        system.Cr0 = paging == Paging.None ? 1UL : 0x8000_0001;
        system.Cr3 = Root;
        system.Cr4 = (isPae ? 0x20UL : 0x10UL) | (paging == Paging.FiveLevels ? 0x1000UL : 0);
        system.Efer = isLong ? 0x500UL : 0;
        VcpuSegment data = new() { Limit = uint.MaxValue, Type = 3, Present = 1, Dpl = (byte)privilege, S = 1, Db = (byte)(bitness == 16 ? 0 : 1), G = 1 };
        (system.Ds, system.Es, system.Fs, system.Gs, system.Ss) = (data, data, data, data, data);
        system.Cs = data with { Type = 11, L = (byte)(bitness == 64 ? 1 : 0), Db = (byte)(bitness == 32 ? 1 : 0) };
        system.Ldt.Unusable = 1;
        Context.Registers.Rflags = 2;
    }

    public VcpuContext Context;

    public int Bitness { get; }

    public ulong Xcr0 { get; set; } = 7;

    /// <summary>An XSAVE area, all zeros.</summary>
    public byte[] Xsave { get; } = new byte[4096];

    /// <summary>Guest physical pages that the host can't read.</summary>
    public HashSet<ulong> Missing { get; } = [];

    /// <summary>What tables say of pages: accessed and dirty, unless a test wants to see it noted.</summary>
    public ulong Noted { get; set; } = Accessed | Dirty;

    /// <summary>The physical address of a linear one that is mapped.</summary>
    public ulong Gpa(ulong linear) => _paging == Paging.None ? linear : _pages[linear & ~(PageBytes - 1)] | (linear & (PageBytes - 1));

    /// <summary>The table pages of the walk to a linear address that is mapped, from the root.</summary>
    public IReadOnlyList<ulong> Tables(ulong linear) => _tables.GetValueOrDefault(linear & ~(PageBytes - 1), []);

    /// <summary>Maps linear pages, each to a page of memory or beyond it.</summary>
    public SyntheticGuest Map(ulong linear, int pages = 1)
    {
        for (int i = 0; i < pages && _paging != Paging.None; i++)
        {
            MapPage(linear + ((ulong)i * PageBytes));
        }

        return this;
    }

    /// <summary>Writes an instruction where RIP is to be, which has to be mapped.</summary>
    public SyntheticGuest Code(ulong linear, Action<Assembler> instruction)
    {
        var assembler = new Assembler(Bitness);
        instruction(assembler);
        var bytes = new MemoryStream();
        _ = assembler.Assemble(new StreamCodeWriter(bytes), linear - Context.SystemRegisters.Cs.Base);
        return Code(linear, bytes.ToArray());
    }

    /// <summary>The same with an instruction's bytes.</summary>
    public SyntheticGuest Code(ulong linear, params ReadOnlySpan<byte> bytes)
    {
        Write(linear, bytes);
        Context.Registers.Rip = linear - Context.SystemRegisters.Cs.Base;
        return this;
    }

    public void Write(ulong linear, ReadOnlySpan<byte> bytes)
    {
        for (int i = 0; i < bytes.Length; i++)
        {
            _memory[Gpa(linear + (ulong)i)] = bytes[i];
        }
    }

    public void Write(ulong linear, params ReadOnlySpan<ulong> words)
    {
        Span<byte> bytes = stackalloc byte[sizeof(ulong)];
        for (int i = 0; i < words.Length; i++)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(bytes, words[i]);
            Write(linear + ((ulong)i * sizeof(ulong)), bytes);
        }
    }

    public SyntheticGuest Put(ulong linear, params ReadOnlySpan<ulong> words)
    {
        Write(linear, words);
        return this;
    }

    public void WritePhysical(ulong gpa, ReadOnlySpan<byte> bytes) => bytes.CopyTo(_memory.AsSpan((int)gpa));

    public bool Read(ulong gpa, Span<byte> destination)
    {
        if (Missing.Contains(gpa & ~(PageBytes - 1)) || gpa + (ulong)destination.Length > MemoryBytes)
        {
            return false;
        }

        _memory.AsSpan((int)gpa, destination.Length).CopyTo(destination);
        return true;
    }

    /// <summary>What the locator says of the instruction.</summary>
    public Dictionary<ulong, FaultAccess> Locate()
    {
        var found = new FaultCandidate[FaultLocator.MostCandidates];
        int count = new FaultLocator(Read).Locate(in Context, Xcr0, Xsave, found);
        return found[..count].ToDictionary(candidate => candidate.Gpa, candidate => candidate.Access);
    }

    /// <summary>The pages of an access to linear pages: they themselves, and the tables on the way.</summary>
    public Dictionary<ulong, FaultAccess> Expect(params (ulong Linear, FaultAccess Access)[] touched)
    {
        var expected = new Dictionary<ulong, FaultAccess>();
        foreach ((ulong linear, FaultAccess access) in touched)
        {
            foreach (ulong table in Tables(linear))
            {
                expected[table] = expected.GetValueOrDefault(table) | FaultAccess.Read;
            }

            ulong page = Gpa(linear) & ~(PageBytes - 1);
            expected[page] = expected.GetValueOrDefault(page) | access;
        }

        return expected;
    }

    private void MapPage(ulong linear)
    {
        (int top, int last, int bits) = _paging switch
        {
            Paging.TwoLevels => (2, 1, 10),
            Paging.TwoLevelsLarge => (2, 2, 10),
            Paging.Pae => (3, 1, 9),
            Paging.PaeLarge => (3, 2, 9),
            Paging.FourLevels => (4, 1, 9),
            Paging.FourLevels2M => (4, 2, 9),
            Paging.FourLevels1G => (4, 3, 9),
            _ => (5, 1, 9),
        };
        List<ulong> tables = [];
        ulong table = Root;
        for (int level = top; ; level--)
        {
            int shift = 12 + (bits * (level - 1));
            int entryBytes = bits == 10 ? 4 : 8;
            int at = (int)(table + ((linear >> shift & ((1UL << bits) - 1)) * (ulong)entryBytes));
            bool isRootOfPae = level == 3 && _paging is Paging.Pae or Paging.PaeLarge && level == top;
            tables.Add(table);
            ulong entry = entryBytes == 4 ? BinaryPrimitives.ReadUInt32LittleEndian(_memory.AsSpan(at)) : BinaryPrimitives.ReadUInt64LittleEndian(_memory.AsSpan(at));
            if (level == last)
            {
                ulong offsets = (1UL << shift) - 1;
                entry = entry != 0 ? entry : NewPage(shift) | PresentWritableUser | Noted | (level > 1 ? Large : 0);
                _pages[linear] = (entry & ~0xFFFUL & ~offsets) | (linear & offsets);
            }
            else if (entry == 0)
            {
                entry = _nextTable | (isRootOfPae ? 1 : PresentWritableUser | (Noted & Accessed));
                _nextTable += PageBytes;
            }

            if (entryBytes == 4)
            {
                BinaryPrimitives.WriteUInt32LittleEndian(_memory.AsSpan(at), (uint)entry);
            }
            else
            {
                BinaryPrimitives.WriteUInt64LittleEndian(_memory.AsSpan(at), entry);
            }

            if (level == last)
            {
                _tables[linear] = tables;
                return;
            }

            table = entry & ~0xFFFUL;
        }
    }

    /// <summary>Small pages in turn; of large ones only the first are within memory, where code has to lie.</summary>
    private ulong NewPage(int shift)
    {
        ulong bytes = 1UL << shift;
        ulong page = shift == 30 && _nextPage < bytes ? 0 : (_nextPage + bytes - 1) & ~(bytes - 1);
        _nextPage = page + bytes;
        return page;
    }
}
