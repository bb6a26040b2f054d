namespace Pageferry.Vmm.Tests.Locating;

/// <summary>The walk through the guest's page tables, in each paging mode.</summary>
public class PageWalkTests
{
    private const ulong Code = 0x40_0000;
    private const ulong Data = 0x1234_5000;

    public static TheoryData<Paging, int> Modes => new()
    {
        { Paging.None, 32 },
        { Paging.TwoLevels, 32 },
        { Paging.TwoLevelsLarge, 32 },
        { Paging.Pae, 32 },
        { Paging.PaeLarge, 32 },
        { Paging.FourLevels, 32 },
        { Paging.FourLevels, 64 },
        { Paging.FourLevels2M, 64 },
        { Paging.FourLevels1G, 64 },
        { Paging.FiveLevels, 64 },
    };

    public static TheoryData<Paging, int> TableModes => [.. Modes.Where(mode => mode.Data.Item1 != Paging.None)];

    [Theory]
    [MemberData(nameof(Modes))]
    public void The_tables_lead_to_the_page_and_are_listed(Paging paging, int bitness)
    {
        SyntheticGuest guest = Guest(paging, bitness);
        Assert.Equal(guest.Expect((Code, FaultAccess.Execute), (Data, FaultAccess.Write)), guest.Locate());
    }

    [Theory]
    [MemberData(nameof(TableModes))]
    public void A_table_that_does_not_say_so_yet_is_written(Paging paging, int bitness)
    {
        SyntheticGuest guest = Guest(paging, bitness, noted: 0);
        Dictionary<ulong, FaultAccess> found = guest.Locate();

        // PAE's first table has nothing to note.
        bool isPae = paging is Paging.Pae or Paging.PaeLarge;
        foreach (ulong table in guest.Tables(Data).Skip(isPae ? 1 : 0))
        {
            Assert.Equal(FaultAccess.Read | FaultAccess.Write, found[table]);
        }

        if (isPae)
        {
            Assert.Equal(FaultAccess.Read, found[guest.Tables(Data)[0]]);
        }
    }

    [Theory]
    [MemberData(nameof(TableModes))]
    public void Only_a_write_makes_a_page_dirty(Paging paging, int bitness)
    {
        SyntheticGuest guest = Guest(paging, bitness, noted: SyntheticGuest.Accessed);
        Dictionary<ulong, FaultAccess> found = guest.Locate();
        Assert.Equal(FaultAccess.Read | FaultAccess.Write, found[guest.Tables(Data)[^1]]);
        IEnumerable<ulong> others = guest.Tables(Code).Concat(guest.Tables(Data)).Where(table => table != guest.Tables(Data)[^1]);
        Assert.All(others, table => Assert.Equal(FaultAccess.Read, found[table]));
    }

    [Theory]
    [MemberData(nameof(TableModes))]
    public void The_walk_stops_at_a_table_that_is_missing(Paging paging, int bitness)
    {
        int levels = Guest(paging, bitness).Tables(Data).Count;
        for (int level = 0; level < levels; level++)
        {
            SyntheticGuest guest = Guest(paging, bitness);
            ulong missing = guest.Tables(Data)[level];
            guest.Missing.Add(missing);
            Dictionary<ulong, FaultAccess> found = guest.Locate();
            Assert.Equal(FaultAccess.Read, found[missing]);
            Assert.DoesNotContain(guest.Gpa(Data) & ~0xFFFUL, found.Keys);
            Assert.Equal(guest.Tables(Data).Take(level + 1).Except(guest.Tables(Code)), found.Keys.Intersect(guest.Tables(Data)).Except(guest.Tables(Code)));
        }
    }

    [Theory]
    [MemberData(nameof(TableModes))]
    public void An_address_that_the_guest_has_not_mapped_leads_nowhere(Paging paging, int bitness)
    {
        SyntheticGuest guest = Guest(paging, bitness);
        guest.Context.Registers.Rbx = 0x7000_0000;
        Dictionary<ulong, FaultAccess> found = guest.Locate();
        Assert.All(found, candidate => Assert.NotEqual(FaultAccess.Write, candidate.Value));
    }

    [Fact]
    public void Large_pages_of_two_levels_lie_beyond_4_GiB_too()
    {
        SyntheticGuest guest = Guest(Paging.TwoLevelsLarge, 32);

        // PSE-36: bits 13 to 20 of the entry are bits 32 to 39 of the address.
        int at = (int)(Data >> 22) * 4;
        guest.Context.SystemRegisters.Cr3 = 0x1000;
        uint entry = 0x0080_0000 | 0xE7 | (5 << 13);
        guest.WritePhysical(0x1000 + (ulong)at, BitConverter.GetBytes(entry));
        Assert.Contains((5UL << 32) | 0x0080_0000 | (Data & 0x3F_F000), guest.Locate().Keys);
    }

    [Fact]
    public void A_large_bit_means_nothing_without_page_size_extensions()
    {
        SyntheticGuest guest = Guest(Paging.TwoLevelsLarge, 32);
        guest.Context.SystemRegisters.Cr4 = 0;
        Assert.DoesNotContain(guest.Gpa(Data), guest.Locate().Keys);
    }

    private static SyntheticGuest Guest(Paging paging, int bitness, ulong noted = SyntheticGuest.Accessed | SyntheticGuest.Dirty)
    {
        var guest = new SyntheticGuest(paging, bitness, privilege: 0) { Noted = noted };

        // mov byte [rbx], 1; in 32-bit code [ebx].
        guest.Map(Code).Map(Data).Code(Code, 0xC6, 0x03, 0x01);
        guest.Context.Registers.Rbx = Data;
        return guest;
    }
}
