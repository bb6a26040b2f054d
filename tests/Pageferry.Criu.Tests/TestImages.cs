using Google.Protobuf;

namespace Pageferry.Criu.Tests;

/// <summary>Writes images as CRIU does, or as somebody does who means harm.</summary>
internal sealed class TestImages : IDisposable
{
    internal const int Pid = 7;

    internal TestImages()
    {
        Folder = Directory.CreateTempSubdirectory("pageferry-images-").FullName;
        Write("inventory.img", ImageFile.INVENTORY_MAGIC, [Message((1, 2))], isFirst: true);
        Write("pstree.img", ImageFile.PSTREE_MAGIC, [Message((1, Pid), (2, 0))]);
    }

    internal string Folder { get; }

    /// <summary>A message of numbers.</summary>
    internal static byte[] Message(params (int Field, ulong Value)[] fields)
    {
        using var bytes = new MemoryStream();
        using var stream = new CodedOutputStream(bytes);
        foreach ((int field, ulong value) in fields)
        {
            stream.WriteTag(field, WireFormat.WireType.Varint);
            stream.WriteUInt64(value);
        }

        stream.Flush();
        return bytes.ToArray();
    }

    /// <summary>The message of a process's mappings.</summary>
    internal static byte[] Memory(params (ulong Start, ulong End)[] vmas)
    {
        const int VmasField = 14;
        using var bytes = new MemoryStream();
        using var stream = new CodedOutputStream(bytes);
        foreach ((ulong start, ulong end) in vmas)
        {
            stream.WriteTag(VmasField, WireFormat.WireType.LengthDelimited);
            stream.WriteBytes(ByteString.CopyFrom(Message((1, start), (2, end), (5, 3), (6, 0x22))));
        }

        stream.Flush();
        return bytes.ToArray();
    }

    internal static byte[] Image(uint magic, IEnumerable<byte[]> messages, bool isFirst = false) =>
    [
        .. isFirst ? [] : BitConverter.GetBytes(ImageFile.IMG_COMMON_MAGIC),
        .. BitConverter.GetBytes(magic),
        .. messages.SelectMany(message => BitConverter.GetBytes(message.Length).Concat(message)),
    ];

    internal void Write(string name, uint magic, IEnumerable<byte[]> messages, bool isFirst = false) =>
        File.WriteAllBytes(Path.Combine(Folder, name), Image(magic, messages, isFirst));

    /// <summary>Writes a pagemap of the newer form.</summary>
    internal void WritePagemap(params (ulong Address, ulong Count, PagemapFlags Flags)[] entries) =>
        WritePagemap([.. entries.Select(entry => Message((1, entry.Address), (2, 0), (4, (ulong)entry.Flags), (5, entry.Count)))]);

    internal void WritePagemap(params byte[][] entries) =>
        Write($"pagemap-{Pid}.img", ImageFile.PAGEMAP_MAGIC, [Message((1, 1)), .. entries]);

    /// <summary>Writes a pages image in which each page is filled with its number.</summary>
    internal void WritePages(int count, byte first = 0) =>
        File.WriteAllBytes(Path.Combine(Folder, "pages-1.img"), [.. Enumerable.Range(0, count).SelectMany(page => Enumerable.Repeat((byte)(first + page), 4096))]);

    public void Dispose() => Directory.Delete(Folder, recursive: true);
}
