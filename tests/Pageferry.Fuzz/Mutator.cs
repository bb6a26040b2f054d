using System.Buffers.Binary;

namespace Pageferry.Fuzz;

/// <summary>Changes messages: the same seed makes the same changes.</summary>
internal sealed class Mutator(int seed)
{
    private const int MostChanges = 6;
    private const int MostBytes = 64 << 10;

    private static readonly ulong[] s_edges = [0, 1, 2, 7, 8, 63, 64, 65, 127, 128, 255, 256, 4095, 4096, 32767, 65535, int.MaxValue, 1UL << 31, uint.MaxValue, 1UL << 32, long.MaxValue, ulong.MaxValue];

    private readonly Random _random = new(seed);

    /// <summary>Makes another message of one.</summary>
    /// <param name="message">The message.</param>
    /// <param name="other">Another one, of which a piece may be taken.</param>
    internal byte[] Change(byte[] message, byte[] other)
    {
        List<byte> bytes = [.. message];
        for (int left = _random.Next(1, MostChanges + 1); left > 0; left--)
        {
            ChangeOnce(bytes, other);
        }

        return bytes.Count <= MostBytes ? [.. bytes] : [.. bytes.Take(MostBytes)];
    }

    /// <summary>One of so many.</summary>
    internal int Pick(int count) => _random.Next(count);

    private void ChangeOnce(List<byte> bytes, byte[] other)
    {
        int at = _random.Next(bytes.Count + 1);
        int length = _random.Next(Math.Min(bytes.Count - at, 64) + 1);
        switch (_random.Next(7))
        {
            case 0 when at < bytes.Count:
                bytes[at] ^= (byte)(1 << _random.Next(8));
                break;

            case 1 when at < bytes.Count:
                bytes[at] = (byte)_random.Next(256);
                break;

            case 2:
                WriteEdge(bytes, at);
                break;

            case 3:
                bytes.RemoveRange(at, length);
                break;

            case 4:
                bytes.InsertRange(at, bytes.GetRange(at, length));
                break;

            case 5:
                bytes.RemoveRange(at, bytes.Count - at);
                break;

            default:
                int from = _random.Next(other.Length + 1);
                bytes.InsertRange(at, other.Skip(from).Take(_random.Next(256)));
                break;
        }
    }

    /// <summary>Writes a number that is at an edge, or beside one, over what is there.</summary>
    private void WriteEdge(List<byte> bytes, int at)
    {
        Span<byte> number = stackalloc byte[sizeof(ulong)];
        BinaryPrimitives.WriteUInt64LittleEndian(number, s_edges[_random.Next(s_edges.Length)] + (ulong)_random.Next(-1, 2));
        int width = 1 << _random.Next(4);
        for (int i = 0; i < width && at + i < bytes.Count; i++)
        {
            bytes[at + i] = number[i];
        }
    }
}
