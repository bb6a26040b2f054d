using System.Buffers.Binary;
using Pageferry.Memory;

namespace Pageferry.Vmm;

/// <summary>A guest's program: segments to load and an entry point.</summary>
public sealed class GuestImage
{
    private const int ElfHeaderBytes = 64;
    private const int ProgramHeaderBytes = 56;
    private const ushort ElfExecutable = 2;
    private const ushort ElfMachineX64 = 62;
    private const uint SegmentLoad = 1;
    private const uint SegmentInterpreter = 3;
    private const long MostFileBytes = 1L << 30;

    private readonly List<(ulong Gpa, ReadOnlyMemory<byte> Content, ulong Length)> _segments = [];

    private GuestImage(string name) => Name = name;

    /// <summary>What errors and reports call it.</summary>
    public string Name { get; }

    /// <summary>Where the vCPUs start.</summary>
    public ulong Entry { get; private set; }

    /// <summary>The first page behind the last segment.</summary>
    public ulong End { get; private set; }

    /// <summary>Finds a guest: a built-in one by its name, or a file.</summary>
    /// <param name="nameOrPath">"stamp", "random", or the path of a static ELF64 program for x86-64 or of a flat binary.</param>
    /// <returns>The image.</returns>
    /// <exception cref="FileNotFoundException">There is neither.</exception>
    /// <exception cref="InvalidDataException">The file is no program that can be loaded; the message says why.</exception>
    public static GuestImage Find(string nameOrPath)
    {
        if (BuiltInGuest.TryAssemble(nameOrPath, BootLayout.GuestBase) is { } code)
        {
            return Flat(nameOrPath, code);
        }

        var file = new FileInfo(nameOrPath);
        if (!file.Exists)
        {
            throw new FileNotFoundException($"There is no guest '{nameOrPath}': it is neither built in ({string.Join(", ", BuiltInGuest.Names)}) nor a file.", nameOrPath);
        }

        if (file.Length is 0 or > MostFileBytes)
        {
            throw new InvalidDataException($"The guest '{nameOrPath}' has {file.Length} bytes; a program has 1 to {MostFileBytes}.");
        }

        byte[] content = File.ReadAllBytes(nameOrPath);
        return content.AsSpan().StartsWith("\x7f"u8) && content.AsSpan(1).StartsWith("ELF"u8) ? Elf(nameOrPath, content) : Flat(nameOrPath, content);
    }

    /// <summary>An image of a flat binary, loaded and started at <see cref="BootLayout.GuestBase"/>.</summary>
    /// <param name="name">What errors call it.</param>
    /// <param name="content">Its bytes.</param>
    /// <returns>The image.</returns>
    public static GuestImage Flat(string name, ReadOnlyMemory<byte> content)
    {
        var image = new GuestImage(name) { Entry = BootLayout.GuestBase };
        image.Add(BootLayout.GuestBase, content, (ulong)content.Length);
        return image;
    }

    /// <summary>An image of a static ELF64 program for x86-64.</summary>
    /// <param name="name">What errors call it.</param>
    /// <param name="content">The file's bytes.</param>
    /// <returns>The image.</returns>
    /// <exception cref="InvalidDataException">It can't be loaded; the message says why.</exception>
    public static GuestImage Elf(string name, ReadOnlyMemory<byte> content)
    {
        ReadOnlySpan<byte> file = content.Span;
        if (file.Length < ElfHeaderBytes || file[4] != 2 || file[5] != 1)
        {
            throw new InvalidDataException($"The guest '{name}' is no little-endian ELF64 file.");
        }

        ushort type = BinaryPrimitives.ReadUInt16LittleEndian(file[16..]);
        ushort machine = BinaryPrimitives.ReadUInt16LittleEndian(file[18..]);
        if (machine != ElfMachineX64)
        {
            throw new InvalidDataException($"The guest '{name}' is built for another architecture (ELF machine {machine}); x86-64 is {ElfMachineX64}.");
        }

        if (type != ElfExecutable)
        {
            throw new InvalidDataException($"The guest '{name}' is of ELF type {type}; link it as a static executable (type {ElfExecutable}): gcc -static -nostdlib -no-pie.");
        }

        var image = new GuestImage(name) { Entry = BinaryPrimitives.ReadUInt64LittleEndian(file[24..]) };
        ulong headers = BinaryPrimitives.ReadUInt64LittleEndian(file[32..]);
        int headerBytes = BinaryPrimitives.ReadUInt16LittleEndian(file[54..]);
        int headerCount = BinaryPrimitives.ReadUInt16LittleEndian(file[56..]);
        if (headerBytes < ProgramHeaderBytes || headers > (ulong)file.Length || (ulong)(headerBytes * headerCount) > (ulong)file.Length - headers)
        {
            throw new InvalidDataException($"The guest '{name}' has {headerCount} program headers of {headerBytes} bytes at {headers}, beyond its {file.Length} bytes.");
        }

        for (int i = 0; i < headerCount; i++)
        {
            image.AddElfSegment(content, (int)headers + (i * headerBytes));
        }

        return image._segments.Exists(segment => image.Entry - segment.Gpa < segment.Length)
            ? image
            : throw new InvalidDataException($"The guest '{name}' starts at 0x{image.Entry:x}, where it loads nothing.");
    }

    /// <summary>Writes the segments into a guest's memory.</summary>
    /// <param name="memory">The memory, all zero.</param>
    /// <exception cref="InvalidDataException">The image does not fit.</exception>
    public void Load(GuestMemory memory)
    {
        foreach ((ulong gpa, ReadOnlyMemory<byte> content, ulong length) in _segments)
        {
            if (gpa > memory.Size || length > memory.Size - gpa)
            {
                throw new InvalidDataException($"The guest '{Name}' needs {length} bytes at 0x{gpa:x}; the machine has {memory.Size} bytes of memory.");
            }

            memory.Write(gpa, content.Span);
        }
    }

    private void AddElfSegment(ReadOnlyMemory<byte> content, int header)
    {
        ReadOnlySpan<byte> file = content.Span;
        uint type = BinaryPrimitives.ReadUInt32LittleEndian(file[header..]);
        if (type == SegmentInterpreter)
        {
            throw new InvalidDataException($"The guest '{Name}' needs a dynamic linker; link it statically: gcc -static -nostdlib -no-pie.");
        }

        if (type != SegmentLoad)
        {
            return;
        }

        ulong offset = BinaryPrimitives.ReadUInt64LittleEndian(file[(header + 8)..]);
        ulong gpa = BinaryPrimitives.ReadUInt64LittleEndian(file[(header + 24)..]);
        ulong inFile = BinaryPrimitives.ReadUInt64LittleEndian(file[(header + 32)..]);
        ulong inMemory = BinaryPrimitives.ReadUInt64LittleEndian(file[(header + 40)..]);
        if (offset > (ulong)file.Length || inFile > (ulong)file.Length - offset || inMemory < inFile || gpa > ulong.MaxValue - inMemory)
        {
            throw new InvalidDataException($"The guest '{Name}' has a segment of {inFile} bytes at {offset} for {inMemory} bytes at 0x{gpa:x}, which makes no sense in a file of {file.Length} bytes.");
        }

        if (inMemory > 0)
        {
            Add(gpa, content.Slice((int)offset, (int)inFile), inMemory);
        }
    }

    private void Add(ulong gpa, ReadOnlyMemory<byte> content, ulong length)
    {
        if (gpa < BootLayout.GuestBase)
        {
            throw new InvalidDataException($"The guest '{Name}' loads at 0x{gpa:x}; the first 0x{BootLayout.GuestBase:x} bytes hold the machine's tables and stacks.");
        }

        _segments.Add((gpa, content, length));
        End = Math.Max(End, (gpa + length + Page.Size - 1) & ~(ulong)(Page.Size - 1));
    }
}
