using System.Buffers.Binary;
using System.Numerics;
using System.Runtime.InteropServices;
using Pageferry.Linux;
using Pageferry.Memory;
using Pageferry.Migration;

namespace Pageferry.Fuzz;

/// <summary>What an engine leaves to the one after it, which may be another build's or damaged.</summary>
internal static class Records
{
    private const int Process = 7;

    /// <summary>Where <see cref="ForeignRecord"/> has the digest of its head, and behind the head the messages of the first slot.</summary>
    private const int HeadDigestAt = 72;
    private const int EventsAt = Page.Size + 64;

    private static readonly GuestRegion[] s_ranges = [new(0x10000, 3 * Page.Size), new(0x7f00_0000_0000, 61 * Page.Size)];

    /// <summary>Takes the record of a process's memory over, as far as that goes without the process.</summary>
    internal static void ReadProcess(byte[] input)
    {
        byte[] bytes = [.. input];
        if (bytes.Length >= Page.Size)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(HeadDigestAt), DigestOf(bytes.AsSpan(0, HeadDigestAt)));
        }

        using MemoryFile file = FileOf(bytes);
        using var record = ForeignRecord.Open(file.Descriptor.Duplicate(), static pid => pid == Process ? s_ranges : null);
        FuzzTargets.Hold(record.CountChildren([record]) is >= 0 and <= ForeignRecord.Events, "children are counted by messages");
        if (!record.IsFilled)
        {
            record.FillFrom([record]);
            return;
        }

        ForeignView view = record.ReadView();
        for (int i = 0; i < ForeignRecord.Events; i++)
        {
            UserfaultfdEvent read = record.Unapplied[i];
            switch (read.Kind)
            {
                case UserfaultfdEventKind.Unmap:
                    view.Unmap(read.Start, read.End);
                    break;
                case UserfaultfdEventKind.Remap:
                    view.Move(read.RemapFrom, read.RemapTo, read.RemapLength);
                    break;
            }
        }

        ulong end = 0;
        ulong pages = 0;
        foreach (GuestRegion mapped in view.Mapped)
        {
            FuzzTargets.Hold(mapped.Length > 0 && mapped.Gpa >= end, "what is mapped ascends");
            end = mapped.End;
            pages += mapped.Length / Page.Size;
        }

        FuzzTargets.Hold(pages <= FuzzTargets.Pages, "no page is in two places");
    }

    /// <summary>Opens the record of an arrival.</summary>
    internal static void ReadArrival(byte[] input)
    {
        using MemoryFile file = FileOf(input);
        using var buffer = new NativeBuffer(file);
        var record = ArrivalRecord.Open(buffer);
        FuzzTargets.Hold(record.States().MemoryBytes <= (ulong)buffer.Length, "the states are within the record");
    }

    /// <summary>A record of a process that has unmapped and moved memory and forked, of which nothing was acted upon.</summary>
    internal static byte[] OfProcess()
    {
        using var record = ForeignRecord.Begin(Process, s_ranges);
        using MemoryFile file = MemoryFile.FromDescriptor(record.Descriptor.Duplicate(), "record");
        using MappedRegion mapped = MappedRegion.MapShared(file.Descriptor, 0, file.Length);
        byte[] bytes = mapped.Span(0, (int)file.Length).ToArray();
        Message(bytes, 0, UserfaultfdEventKind.Unmap, s_ranges[0].Gpa, s_ranges[0].Gpa + Page.Size);
        Message(bytes, 1, UserfaultfdEventKind.Remap, s_ranges[1].Gpa, 0x7e00_0000_0000, 4 * Page.Size);
        Message(bytes, 2, UserfaultfdEventKind.Fork, 9);
        Message(bytes, 3, UserfaultfdEventKind.Remove, s_ranges[1].End - Page.Size, s_ranges[1].End);
        return bytes;
    }

    /// <summary>A record that was begun.</summary>
    internal static byte[] Arrival(MigrationLayout layout)
    {
        using var buffer = new NativeBuffer((int)ArrivalRecord.BytesFor(layout));
        _ = ArrivalRecord.Begin(buffer, layout);
        return buffer.Span(0, buffer.Length).ToArray();
    }

    private static void Message(Span<byte> record, int number, UserfaultfdEventKind kind, params ReadOnlySpan<ulong> words)
    {
        Span<byte> message = record.Slice(EventsAt + (number * UserfaultfdEvent.Size), UserfaultfdEvent.Size);
        message[0] = (byte)kind;
        MemoryMarshal.AsBytes(words).CopyTo(message[8..]);
    }

    private static uint DigestOf(ReadOnlySpan<byte> head)
    {
        uint digest = uint.MaxValue;
        foreach (ulong word in MemoryMarshal.Cast<byte, ulong>(head))
        {
            digest = BitOperations.Crc32C(digest, word);
        }

        return digest;
    }

    /// <summary>A file of whole pages that begins with bytes.</summary>
    private static MemoryFile FileOf(ReadOnlySpan<byte> bytes)
    {
        ulong length = (ulong)Math.Max(1, (bytes.Length + Page.Size - 1) / Page.Size) * Page.Size;
        var file = MemoryFile.Create("fuzz", length);
        using MappedRegion mapped = MappedRegion.MapShared(file.Descriptor, 0, length);
        bytes.CopyTo(mapped.Span(0, bytes.Length));
        return file;
    }
}
