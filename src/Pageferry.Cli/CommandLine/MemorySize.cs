using System.Buffers;
using System.Globalization;

namespace Pageferry.Cli;

/// <summary>A size of guest memory, written as people write it for QEMU: <c>512M</c>, <c>1G</c>, <c>1.5G</c>; without a unit, MiB.</summary>
/// <param name="Bytes">The size in bytes: above zero and a multiple of the page size.</param>
internal readonly record struct MemorySize(ulong Bytes)
{
    private const string Syntax = "Write a number and a unit, such as 512M or 1G (B, K, M, G, T; powers of 1024; without a unit, M).";

    private static readonly SearchValues<char> s_digits = SearchValues.Create("0123456789.");

    /// <summary>Reads a size of guest memory.</summary>
    /// <param name="text">What the user wrote.</param>
    /// <param name="size">The size.</param>
    /// <param name="error">Why the text is no such size and what to write instead; empty on success.</param>
    /// <returns>Whether the text is a size that a guest can have.</returns>
    internal static bool TryParse(string text, out MemorySize size, out string error)
    {
        size = default;
        int unitAt = text.AsSpan().IndexOfAnyExcept(s_digits);
        ReadOnlySpan<char> number = unitAt < 0 ? text : text.AsSpan(0, unitAt);
        int shift = unitAt < 0 ? 20 : Shift(text.AsSpan(unitAt));
        if (shift < 0 || !decimal.TryParse(number, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out decimal count))
        {
            error = $"'{text}' is not a memory size. {Syntax}";
            return false;
        }

        // A decimal holds 96 bits: the text's length bounds the number before it is multiplied.
        if (count >= 1UL << (63 - shift))
        {
            error = $"Memory size '{text}' is beyond what 64-bit addresses reach. {Syntax}";
            return false;
        }

        decimal exact = count * (1UL << shift);
        if (exact == 0)
        {
            error = $"Memory size '{text}' is zero; a guest needs memory. {Syntax}";
            return false;
        }

        if (exact % Memory.Page.Size != 0)
        {
            error = $"Memory size '{text}' is {exact.ToString("0.#", CultureInfo.InvariantCulture)} bytes, not a multiple of the page size ({Memory.Page.Size} bytes). {Syntax}";
            return false;
        }

        size = new MemorySize((ulong)exact);
        error = string.Empty;
        return true;
    }

    /// <summary>Writes the size as the option takes it, in the largest unit that keeps it whole: <c>512M</c>.</summary>
    /// <returns>The text.</returns>
    public override string ToString() => Bytes switch
    {
        _ when Bytes % (1UL << 30) == 0 => $"{Bytes >> 30}G",
        _ when Bytes % (1UL << 20) == 0 => $"{Bytes >> 20}M",
        _ => $"{Bytes >> 10}K",
    };

    /// <summary>Writes a size in the largest unit that keeps it whole: <c>512 MiB</c>.</summary>
    /// <param name="bytes">The size in bytes.</param>
    /// <returns>The text.</returns>
    internal static string Format(ulong bytes) => bytes switch
    {
        >= 1UL << 30 when bytes % (1UL << 30) == 0 => $"{bytes >> 30} GiB",
        >= 1UL << 20 when bytes % (1UL << 20) == 0 => $"{bytes >> 20} MiB",
        >= 1UL << 10 when bytes % (1UL << 10) == 0 => $"{bytes >> 10} KiB",
        _ => $"{bytes} bytes",
    };

    /// <summary>Writes a size with one decimal, for amounts that are measured: <c>513.2 MiB</c>.</summary>
    /// <param name="bytes">The size in bytes.</param>
    /// <returns>The text.</returns>
    internal static string FormatMeasured(ulong bytes) => bytes switch
    {
        >= 1UL << 30 => string.Create(CultureInfo.InvariantCulture, $"{bytes / (double)(1UL << 30):F2} GiB"),
        >= 1UL << 20 => string.Create(CultureInfo.InvariantCulture, $"{bytes / (double)(1UL << 20):F1} MiB"),
        >= 1UL << 10 => string.Create(CultureInfo.InvariantCulture, $"{bytes / (double)(1UL << 10):F1} KiB"),
        _ => $"{bytes} bytes",
    };

    private static int Shift(ReadOnlySpan<char> unit) => unit switch
    {
        "b" or "B" => 0,
        "k" or "K" or "KiB" => 10,
        "m" or "M" or "MiB" => 20,
        "g" or "G" or "GiB" => 30,
        "t" or "T" or "TiB" => 40,
        _ => -1,
    };
}
