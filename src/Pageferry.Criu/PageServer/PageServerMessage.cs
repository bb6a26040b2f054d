using System.Buffers.Binary;
using Pageferry.Memory;

namespace Pageferry.Criu;

/// <summary>The header of a message of CRIU's page-server protocol. All of it is the peer's word, to be checked by who acts on it.</summary>
/// <param name="Command">What is asked for or announced; it may be no value of the enum.</param>
/// <param name="Flags">The high 16 bits of the first word, the flags of a pagemap entry.</param>
/// <param name="Pages">The number of pages.</param>
/// <param name="Address">The first page's address in the process, or in the shared memory.</param>
/// <param name="Id">In a request the process id; in what is pushed the id of a process or of shared memory above 8 bits that say which.</param>
internal readonly record struct PageServerMessage(PageServerCommand Command, PagemapFlags Flags, ulong Pages, ulong Address, ulong Id)
{
    /// <summary>The bytes of a header, in the form that has fewer and in the other.</summary>
    internal const int LeastBytes = 24;
    internal const int MostBytes = 32;

    private const int CommandBits = 16;
    private const uint CommandMask = (1 << CommandBits) - 1;

    /// <summary>The last two words: an address and an id.</summary>
    private const int LastWordsBytes = 2 * sizeof(ulong);

    /// <summary>A request for more pages in one piece than this is taken for none: CRIU asks for 1024 at most.</summary>
    private const ulong MostPagesAsked = 1 << 16;

    /// <summary>Process ids are below this one: <c>PID_MAX_LIMIT</c>.</summary>
    private const ulong EndOfPids = 1 << 22;

    /// <summary>How many bytes a header has.</summary>
    /// <param name="form">Its form.</param>
    internal static int BytesOf(PageServerForm form) => form == PageServerForm.Header24 ? LeastBytes : MostBytes;

    /// <summary>Reads a header.</summary>
    /// <param name="bytes">As many bytes as the form has.</param>
    /// <param name="form">The form.</param>
    internal static PageServerMessage Read(ReadOnlySpan<byte> bytes, PageServerForm form)
    {
        uint word = BinaryPrimitives.ReadUInt32LittleEndian(bytes);
        ulong pages = form == PageServerForm.Header24 ? BinaryPrimitives.ReadUInt32LittleEndian(bytes[4..]) : BinaryPrimitives.ReadUInt64LittleEndian(bytes[8..]);
        ReadOnlySpan<byte> rest = bytes[(BytesOf(form) - LastWordsBytes)..];
        return new PageServerMessage(
            (PageServerCommand)(word & CommandMask), (PagemapFlags)(word >> CommandBits), pages, BinaryPrimitives.ReadUInt64LittleEndian(rest), BinaryPrimitives.ReadUInt64LittleEndian(rest[8..]));
    }

    /// <summary>Tells the form of a connection by its first message, which is a request for pages, or the end of a restore that needs none.</summary>
    /// <param name="bytes">The first 24 bytes.</param>
    /// <returns>The form; null if it is a request in neither.</returns>
    /// <remarks>
    /// The third word of a short request is an address, of a long one a number of pages. No process has pages as low as a number of pages is high, and the fourth
    /// word, a process id or an address, confirms it. A client's form is not that of the images: CRIU 4.2 restores the images of 4.1.
    /// </remarks>
    internal static PageServerForm? FormOfRequest(ReadOnlySpan<byte> bytes)
    {
        ulong third = BinaryPrimitives.ReadUInt64LittleEndian(bytes[8..]);
        ulong fourth = BinaryPrimitives.ReadUInt64LittleEndian(bytes[16..]);
        return Read(bytes, PageServerForm.Header24).Command is PageServerCommand.Close or PageServerCommand.ForceClose or PageServerCommand.GiveUp ? PageServerForm.Header24
            : third < MostPagesAsked && fourth >= MostPagesAsked && fourth % Page.Size == 0 ? PageServerForm.Header32
            : third >= MostPagesAsked && third % Page.Size == 0 && fourth < EndOfPids ? PageServerForm.Header24
            : null;
    }

    /// <summary>Tells the form of a connection by its first message, which opens a process or asks for its parent and has neither pages nor an address.</summary>
    /// <param name="bytes">The first 24 bytes.</param>
    /// <returns>The form: no id is 0.</returns>
    internal static PageServerForm FormOfOpening(ReadOnlySpan<byte> bytes) =>
        BinaryPrimitives.ReadUInt64LittleEndian(bytes[16..]) == 0 ? PageServerForm.Header32 : PageServerForm.Header24;

    /// <summary>Writes the header.</summary>
    /// <param name="bytes">As many bytes as the form has.</param>
    /// <param name="form">The form.</param>
    internal void Write(Span<byte> bytes, PageServerForm form)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, ((uint)Flags << CommandBits) | (uint)Command);
        if (form == PageServerForm.Header24)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(bytes[4..], (uint)Pages);
        }
        else
        {
            BinaryPrimitives.WriteUInt32LittleEndian(bytes[4..], 0);
            BinaryPrimitives.WriteUInt64LittleEndian(bytes[8..], Pages);
        }

        Span<byte> rest = bytes[(BytesOf(form) - LastWordsBytes)..];
        BinaryPrimitives.WriteUInt64LittleEndian(rest, Address);
        BinaryPrimitives.WriteUInt64LittleEndian(rest[8..], Id);
    }
}
