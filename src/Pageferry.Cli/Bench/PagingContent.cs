using System.Buffers.Binary;
using Pageferry.Memory;

namespace Pageferry.Cli;

/// <summary>What the pages hold: in the first word of each its number from 1 up, so that the guest's sum tells of a page that is missing or wrong.</summary>
internal static class PagingContent
{
    private static readonly byte[] s_page = [.. Enumerable.Repeat((byte)42, Page.Size)];

    /// <summary>Writes a run of pages.</summary>
    /// <param name="page">The number of the first, over all slices.</param>
    /// <param name="content">Where to; a page multiple.</param>
    internal static void Write(ulong page, Span<byte> content)
    {
        for (int at = 0; at < content.Length; at += Page.Size)
        {
            s_page.CopyTo(content[at..]);
            BinaryPrimitives.WriteUInt64LittleEndian(content[at..], ++page);
        }
    }

    /// <summary>The sum of the first words of a run of pages.</summary>
    /// <param name="page">The number of the first, over all slices.</param>
    /// <param name="count">How many.</param>
    internal static ulong Sum(ulong page, ulong count) => (ulong)(((UInt128)count * ((2 * (UInt128)page) + count + 1)) / 2);
}
