using Google.Protobuf;
using Pageferry.Memory;

namespace Pageferry.Criu;

/// <summary>The mappings of a process: <c>mm-PID.img</c>.</summary>
public sealed class MemoryMap
{
    private readonly Vma[] _vmas;

    private MemoryMap(Vma[] vmas) => _vmas = vmas;

    /// <summary>The mappings, ascending and without overlaps.</summary>
    public IReadOnlyList<Vma> Vmas => _vmas;

    /// <exception cref="ImageException">The image makes no sense.</exception>
    internal static MemoryMap Read(ImageFile image)
    {
        const int VmasField = 14;
        if (image.Next() is not { } message)
        {
            throw image.Failure("tells of no memory.");
        }

        var vmas = new List<Vma>();
        ulong end = 0;
        image.ReadFields(message, (stream, field) =>
        {
            if (field != VmasField)
            {
                return false;
            }

            Vma vma = ReadVma(image, stream.ReadBytes().CreateCodedInput());
            if (vma.Start < end)
            {
                throw image.Failure($"tells of the mapping at 0x{vma.Start:x} behind one that ends at 0x{end:x}: they overlap or descend.");
            }

            end = vma.End;
            vmas.Add(vma);
            return true;
        });
        return new MemoryMap([.. vmas]);
    }

    private static Vma ReadVma(ImageFile image, CodedInputStream message)
    {
        ulong start = 0;
        ulong end = 0;
        uint protection = 0;
        uint flags = 0;
        image.ReadFields(message, (stream, field) =>
        {
            switch (field)
            {
                case 1:
                    start = stream.ReadUInt64();
                    return true;
                case 2:
                    end = stream.ReadUInt64();
                    return true;
                case 5:
                    protection = stream.ReadUInt32();
                    return true;
                case 6:
                    flags = stream.ReadUInt32();
                    return true;
                default:
                    return false;
            }
        });

        // The vsyscall page alone lies in the kernel's half.
        const ulong Vsyscall = 0xffffffffff600000;
        bool isPossible = (start == Vsyscall && end == Vsyscall + Page.Size) || (start < end && UserSpace.Contains(start, (end - start) / Page.Size));
        return isPossible && start % Page.Size == 0 && end % Page.Size == 0
            ? new Vma(start, end, protection, flags)
            : throw image.Failure($"tells of a mapping from 0x{start:x} to 0x{end:x}: no process has such memory.");
    }
}
