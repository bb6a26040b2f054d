using System.Buffers.Binary;
using Pageferry.Memory;

namespace Pageferry.Vmm.Tests;

public class BootLayoutTests
{
    private const ulong PageDirectories = 0x2_2000;

    [Theory]
    [InlineData(0UL, BootLayout.LeastMemory)]
    [InlineData(BootLayout.LeastMemory, BootLayout.LeastMemory)]
    [InlineData((3UL << 30) + 4096, (3UL << 30) + (2UL << 20))]
    public void Page_tables_map_as_much_as_they_are_told(ulong mapped, ulong end)
    {
        using var memory = GuestMemory.Create(BootLayout.LeastMemory);
        BootLayout.Write(memory, new MachineConfiguration(memory.Size), BootLayout.GuestBase, mapped);
        Assert.NotEqual(0UL, Entry(memory, end - 1));
        Assert.Equal((end - 1) & ~((2UL << 20) - 1), Entry(memory, end - 1) & ~0xFFFUL);
        Assert.Equal(0UL, Entry(memory, end));
    }

    [Fact]
    public void More_than_the_page_tables_hold_is_refused()
    {
        using var memory = GuestMemory.Create(BootLayout.LeastMemory);
        _ = Assert.Throws<ArgumentOutOfRangeException>(() =>
            BootLayout.Write(memory, new MachineConfiguration(memory.Size), BootLayout.GuestBase, BootLayout.MostMemory + 1));
    }

    private static ulong Entry(GuestMemory memory, ulong address)
    {
        Span<byte> entry = stackalloc byte[sizeof(ulong)];
        memory.Read(PageDirectories + ((address >> 21) * sizeof(ulong)), entry);
        return BinaryPrimitives.ReadUInt64LittleEndian(entry);
    }
}
