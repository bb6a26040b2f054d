using System.Buffers.Binary;
using CsCheck;
using Pageferry.Memory;

namespace Pageferry.Vmm.Tests;

[Trait("Needs", "gcc")]
public class GuestImageTests
{
    private const string Empty = "void _start(void) { for (;;) { } }";

    private static readonly Lazy<byte[]> s_program = new(() => File.ReadAllBytes(CompiledGuest.Build(Empty)));

    [Fact]
    public void A_guest_that_is_nowhere_is_named_with_the_built_in_ones()
    {
        FileNotFoundException failure = Assert.Throws<FileNotFoundException>(() => GuestImage.Find("/nowhere/guest"));
        Assert.Contains("/nowhere/guest", failure.Message, StringComparison.Ordinal);
        Assert.Contains("stamp, random", failure.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void An_empty_file_is_refused()
    {
        string path = Path.GetTempFileName();
        Assert.Throws<InvalidDataException>(() => GuestImage.Find(path));
        File.Delete(path);
    }

    [Theory]
    [InlineData(4, 1, "ELF64")]
    [InlineData(5, 2, "ELF64")]
    [InlineData(18, 183, "another architecture (ELF machine 183)")]
    [InlineData(16, 3, "static executable")]
    [InlineData(54, 1, "program headers")]
    [InlineData(57, 0xff, "program headers")]
    [InlineData(39, 0x7f, "program headers")]
    [InlineData(31, 0x10, "starts at 0x10")]
    public void A_program_that_can_not_be_loaded_says_why(int at, byte value, string why)
    {
        byte[] changed = [.. s_program.Value];
        changed[at] = value;
        Assert.Contains(why, Assert.Throws<InvalidDataException>(() => GuestImage.Elf("test", changed)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_program_that_needs_a_dynamic_linker_is_refused() =>
        Assert.Throws<InvalidDataException>(() => GuestImage.Find(CompiledGuest.Build(Empty, "-pie", "-fPIE", "-Wl,--dynamic-linker=/lib64/ld-linux-x86-64.so.2")));

    [Fact]
    public void A_program_where_the_tables_lie_is_refused()
    {
        byte[] changed = [.. s_program.Value];
        int header = (int)BinaryPrimitives.ReadUInt64LittleEndian(changed.AsSpan(32));
        BinaryPrimitives.WriteUInt64LittleEndian(changed.AsSpan(header + 24), 0x1000);
        Assert.Contains("0x1000", Assert.Throws<InvalidDataException>(() => GuestImage.Elf("test", changed)).Message, StringComparison.Ordinal);
    }

    [NeedsKvm]
    [Fact]
    public void A_program_larger_than_the_memory_is_refused()
    {
        GuestImage image = GuestImage.Flat("big", new byte[8 << 20]);
        Assert.Contains("'big'", Assert.Throws<InvalidDataException>(() => KvmMachine.Create(new MachineConfiguration(8 << 20), image)).Message, StringComparison.Ordinal);
    }

    [NeedsKvm]
    [Theory]
    [InlineData(0, 1)]
    [InlineData(4097, 1)]
    [InlineData(4 << 20, 0)]
    [InlineData(4 << 20, 65)]
    [InlineData(1 << 20, 1)]
    public void A_machine_of_impossible_size_is_refused(ulong memory, int vcpus) =>
        Assert.ThrowsAny<ArgumentException>(() => KvmMachine.Create(new MachineConfiguration(memory, vcpus), GuestImage.Find("stamp")));

    [Fact]
    public void No_changed_program_does_harm() =>
        Gen.Select(Gen.Int[0, 400], Gen.Byte, Gen.Int[0, 64]).Sample((at, value, cut) =>
        {
            byte[] changed = s_program.Value[..^cut];
            changed[at] = value;
            return IsLoadedOrRefused(changed);
        });

    [Fact]
    public void No_bytes_do_harm() => Gen.Byte.Array[0, 300].Sample(bytes => IsLoadedOrRefused([0x7f, (byte)'E', (byte)'L', (byte)'F', 2, 1, .. bytes]));

    private static bool IsLoadedOrRefused(byte[] program)
    {
        using GuestMemory memory = GuestMemory.Create(4 << 20);
        try
        {
            GuestImage.Elf("test", program).Load(memory);
        }
        catch (InvalidDataException)
        {
            // Told, not crashed.
        }

        return true;
    }
}
