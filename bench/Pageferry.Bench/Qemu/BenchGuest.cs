using System.Buffers.Binary;
using Pageferry.Memory;
using Pageferry.Vmm;

namespace Pageferry.Bench;

/// <summary>The guest of the comparison, <c>bench/qemu/guest.S</c>: a flat image for Pageferry, a ROM with the same image and tables for QEMU.</summary>
internal static class BenchGuest
{
    /// <summary>What the guest writes when its memory is filled, and at each tick.</summary>
    public const string Filled = "filled";
    public const string Tick = ".";

    /// <summary>From tick to tick.</summary>
    private const int TickMicroseconds = 2000;

    /// <summary>From the end of a touch to the next.</summary>
    private const int GapMicroseconds = 20;

    /// <summary>A touch that takes less is not logged.</summary>
    private const int ThresholdMicroseconds = 5;

    /// <summary>Where guest.S has its parameters.</summary>
    private const int ParametersAt = 16;

    private const int RomBytes = 128 << 10;
    private const uint RomBase = 0xFFFE_0000;
    private const uint StubCopy = 0x8000;

    /// <summary>Assembles the guest.</summary>
    /// <param name="folder">Where to.</param>
    /// <param name="settings">What it is to do.</param>
    /// <returns>The image's path.</returns>
    public static string MakeImage(string folder, MoveSettings settings)
    {
        byte[] image = Assemble(folder, "guest", BootLayout.GuestBase);
        ulong perMicrosecond = (ulong)CyclesPerMicrosecond();
        ulong dirtyPages = (ulong)settings.DirtyMebibytes * (1 << 20) / Page.Size * TickMicroseconds / 1_000_000;
        ulong[] parameters = [100, TickMicroseconds * perMicrosecond, dirtyPages, settings.Touches ? MoveSettings.HasKvm ? GapMicroseconds * perMicrosecond : 1 : 0, ThresholdMicroseconds * perMicrosecond];
        for (int i = 0; i < parameters.Length; i++)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(image.AsSpan(ParametersAt + (i * sizeof(ulong))), parameters[i]);
        }

        string path = Path.Combine(folder, "guest.bin");
        File.WriteAllBytes(path, image);
        return path;
    }

    /// <summary>Makes the ROM that starts an image in QEMU.</summary>
    /// <param name="folder">Where to.</param>
    /// <param name="image">The image's path.</param>
    /// <param name="mebibytes">The guest's memory.</param>
    /// <returns>The ROM's path.</returns>
    public static string MakeRom(string folder, string image, int mebibytes)
    {
        byte[] stub = Assemble(folder, "rom", uint.MaxValue - (Page.Size - 1));
        var guest = GuestImage.Find(image);
        using var memory = GuestMemory.Create((ulong)mebibytes << 20);
        guest.Load(memory);
        BootLayout.Write(memory, new MachineConfiguration(memory.Size), guest.End);
        memory.Write(StubCopy, stub);
        var rom = new byte[RomBytes];
        stub.CopyTo(rom, RomBytes - Page.Size);
        uint pages = 0;
        uint at = Page.Size;
        for (ulong gpa = 0; gpa < guest.End; gpa += Page.Size)
        {
            Span<byte> content = memory.HostView(gpa, Page.Size);
            if (content.ContainsAnyExcept((byte)0))
            {
                content.CopyTo(rom.AsSpan((int)at, Page.Size));
                BinaryPrimitives.WriteUInt32LittleEndian(rom.AsSpan(4 + ((int)pages * 8)), (uint)gpa);
                BinaryPrimitives.WriteUInt32LittleEndian(rom.AsSpan(8 + ((int)pages * 8)), RomBase + at);
                pages++;
                at += Page.Size;
            }
        }

        BinaryPrimitives.WriteUInt32LittleEndian(rom, pages);
        string path = Path.Combine(folder, "rom.bin");
        File.WriteAllBytes(path, rom);
        return path;
    }

    private static byte[] Assemble(string folder, string name, ulong address)
    {
        string @object = Path.Combine(folder, $"{name}.o");
        string binary = Path.Combine(folder, $"{name}.flat");
        _ = Comparison.Run(["gcc", "-c", "-o", @object, Path.Combine(Comparison.Folder, "qemu", $"{name}.S")]);
        _ = Comparison.Run(["ld", $"-Ttext=0x{address:x}", "--oformat", "binary", "-o", binary, @object]);
        return File.ReadAllBytes(binary);
    }

    /// <summary>Near enough for intervals; what the guest measured is held against the wall clock (<see cref="GuestLog"/>).</summary>
    private static double CyclesPerMicrosecond() =>
        double.Parse(File.ReadLines("/proc/cpuinfo").First(line => line.StartsWith("cpu MHz", StringComparison.Ordinal)).Split(": ")[1]);
}
