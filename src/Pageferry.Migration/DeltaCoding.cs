using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>
/// A page as what changed in it since it was sent last (the idea of QEMU's XBZRLE): runs of 8-byte words, in turn unchanged and changed, each as its length
/// and, of changed ones, their content. A length is a byte, or two with the lower 7 bits first.
/// </summary>
internal static class DeltaCoding
{
    /// <summary>Before each delta stands its size.</summary>
    internal const int LengthBytes = sizeof(ushort);

    /// <summary>The most bytes of a delta: beyond that, the page goes whole.</summary>
    internal const int MostBytes = Page.Size / 2;

    private const int Words = Page.Size / sizeof(ulong);
    private const int MostLengthBytes = 2;

    /// <summary>Tells what changed.</summary>
    /// <param name="before">The page as the peer has it.</param>
    /// <param name="now">The page.</param>
    /// <param name="delta">Where to: at least <see cref="MostBytes"/>.</param>
    /// <returns>How many bytes were written; -1 if the page is better sent whole.</returns>
    internal static int Encode(ReadOnlySpan<byte> before, ReadOnlySpan<byte> now, Span<byte> delta)
    {
        ReadOnlySpan<ulong> old = MemoryMarshal.Cast<byte, ulong>(before[..Page.Size]);
        ReadOnlySpan<ulong> words = MemoryMarshal.Cast<byte, ulong>(now[..Page.Size]);
        int bytes = 0;
        int at = 0;
        while (true)
        {
            int same = words[at..].CommonPrefixLength(old[at..]);
            if (at + same == Words)
            {
                return bytes;
            }

            int first = at + same;
            int end = first + 1;
            while (end < Words && words[end] != old[end])
            {
                end++;
            }

            int content = (end - first) * sizeof(ulong);
            if (bytes + (2 * MostLengthBytes) + content > MostBytes)
            {
                return -1;
            }

            bytes += WriteLength(delta[bytes..], same);
            bytes += WriteLength(delta[bytes..], end - first);
            MemoryMarshal.AsBytes(words[first..end]).CopyTo(delta[bytes..]);
            bytes += content;
            at = end;
        }
    }

    /// <summary>Changes a page as it is told.</summary>
    /// <param name="delta">The delta.</param>
    /// <param name="page">The page as it was; when this returns false, anything.</param>
    /// <returns>Whether it was a delta.</returns>
    internal static bool TryApply(ReadOnlySpan<byte> delta, Span<byte> page)
    {
        int at = 0;
        while (!delta.IsEmpty)
        {
            int same = ReadLength(ref delta);
            int changed = ReadLength(ref delta);
            int bytes = changed * sizeof(ulong);
            if (same < 0 || changed < 1 || at + same + changed > Words || bytes > delta.Length)
            {
                return false;
            }

            delta[..bytes].CopyTo(page[((at + same) * sizeof(ulong))..]);
            delta = delta[bytes..];
            at += same + changed;
        }

        return true;
    }

    /// <summary>Writes a delta's size before it.</summary>
    internal static void WriteSize(Span<byte> to, int bytes) => BinaryPrimitives.WriteUInt16LittleEndian(to, (ushort)bytes);

    /// <summary>Reads a delta's size.</summary>
    internal static int ReadSize(ReadOnlySpan<byte> from) => BinaryPrimitives.ReadUInt16LittleEndian(from);

    private static int WriteLength(Span<byte> to, int length)
    {
        if (length < 0x80)
        {
            to[0] = (byte)length;
            return 1;
        }

        to[0] = (byte)(length | 0x80);
        to[1] = (byte)(length >> 7);
        return MostLengthBytes;
    }

    private static int ReadLength(ref ReadOnlySpan<byte> from)
    {
        if (from.IsEmpty)
        {
            return -1;
        }

        int low = from[0];
        if (low < 0x80)
        {
            from = from[1..];
            return low;
        }

        if (from.Length < MostLengthBytes)
        {
            return -1;
        }

        int length = (low & 0x7F) | (from[1] << 7);
        from = from[MostLengthBytes..];
        return length;
    }
}
