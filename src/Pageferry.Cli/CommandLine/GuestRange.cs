using Pageferry.Memory;

namespace Pageferry.Cli;

/// <summary>A range of guest physical addresses, written as <c>GPA+LENGTH</c>: <c>0x200000+0x1000</c>, <c>1G+64M</c>.</summary>
/// <param name="Gpa">The first address; a multiple of the page size.</param>
/// <param name="Length">Bytes; a multiple of the page size, not zero.</param>
internal readonly record struct GuestRange(ulong Gpa, ulong Length)
{
    private const string Syntax = "Write GPA+LENGTH, such as 0x200000+0x1000 or 1G+64M: hexadecimal after 0x, or whole numbers with a unit (B, K, M, G, T; without one, bytes).";

    /// <summary>The address behind it.</summary>
    internal ulong End => Gpa + Length;

    /// <summary>Reads a range.</summary>
    /// <param name="text">What the user wrote.</param>
    /// <param name="range">The range.</param>
    /// <param name="error">Why the text is none and what to write instead; empty on success.</param>
    /// <returns>Whether it is a range of whole pages, in some memory.</returns>
    internal static bool TryParse(string text, out GuestRange range, out string error)
    {
        range = default;
        string[] parts = text.Split('+');
        if (parts.Length != 2 || !Quantity.TryParseBytes(parts[0], out ulong gpa) || !Quantity.TryParseBytes(parts[1], out ulong length))
        {
            error = $"'{text}' is not a range of guest physical addresses. {Syntax}";
            return false;
        }

        error = length == 0 ? $"The range '{text}' is empty. {Syntax}"
            : gpa % Page.Size != 0 || length % Page.Size != 0 ? $"The range '{text}' is not one of whole pages of {Page.Size} bytes. {Syntax}"
            : gpa > ulong.MaxValue - length ? $"The range '{text}' goes beyond what 64-bit addresses reach. {Syntax}"
            : string.Empty;
        range = new GuestRange(gpa, length);
        return error.Length == 0;
    }

    /// <summary>Writes the range as the option takes it.</summary>
    /// <returns>The text.</returns>
    public override string ToString() => $"0x{Gpa:x}+0x{Length:x}";
}
