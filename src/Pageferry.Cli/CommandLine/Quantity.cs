using System.Globalization;

namespace Pageferry.Cli;

/// <summary>A number with a unit, as options take it.</summary>
internal static class Quantity
{
    private const decimal MostSeconds = 365 * 24 * 3600;

    /// <summary>Reads a time: <c>300ms</c>, <c>1.5s</c>, <c>10m</c>, <c>2h</c>.</summary>
    /// <param name="text">What the user wrote.</param>
    /// <param name="unit">The unit of a number without one.</param>
    /// <param name="time">The time, above zero.</param>
    /// <returns>Whether it is one, up to a year.</returns>
    internal static bool TryParseTime(string text, string unit, out TimeSpan time)
    {
        time = default;
        (string number, string written) = Split(text);
        decimal seconds = (written.Length == 0 ? unit : written) switch
        {
            "ms" => 0.001m,
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => 0,
        };
        if (seconds == 0 || !decimal.TryParse(number, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out decimal count) || count <= 0 || count > MostSeconds)
        {
            return false;
        }

        seconds *= count;
        time = TimeSpan.FromMicroseconds((double)(seconds * 1_000_000));
        return seconds <= MostSeconds && time > TimeSpan.Zero;
    }

    /// <summary>Reads a rate in bytes per second: <c>100M</c>, <c>1.5G</c>; without a unit MiB per second, as QEMU's max-bandwidth.</summary>
    /// <param name="text">What the user wrote.</param>
    /// <param name="bytesPerSecond">The rate, above zero.</param>
    /// <returns>Whether it is one.</returns>
    internal static bool TryParseRate(string text, out long bytesPerSecond)
    {
        bytesPerSecond = 0;
        (string number, string unit) = Split(text.EndsWith("/s", StringComparison.Ordinal) ? text[..^2] : text);
        decimal bytes = unit switch
        {
            "b" or "B" => 1,
            "k" or "K" or "KiB" => 1L << 10,
            "" or "m" or "M" or "MiB" => 1L << 20,
            "g" or "G" or "GiB" => 1L << 30,
            _ => 0,
        };
        if (bytes == 0 || !decimal.TryParse(number, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out decimal count) || count > long.MaxValue >> 30)
        {
            return false;
        }

        bytesPerSecond = (long)(bytes * count);
        return bytesPerSecond > 0;
    }

    /// <summary>Reads an address or a number of bytes: <c>0x200000</c>, <c>64M</c>; without a unit, bytes.</summary>
    /// <param name="text">What the user wrote.</param>
    /// <param name="bytes">The number.</param>
    /// <returns>Whether it is one, of up to 64 bits.</returns>
    internal static bool TryParseBytes(string text, out ulong bytes)
    {
        if (text.StartsWith("0x", StringComparison.OrdinalIgnoreCase))
        {
            return ulong.TryParse(text.AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out bytes);
        }

        (string number, string unit) = Split(text);
        int shift = unit switch
        {
            "" or "b" or "B" => 0,
            "k" or "K" or "KiB" => 10,
            "m" or "M" or "MiB" => 20,
            "g" or "G" or "GiB" => 30,
            "t" or "T" or "TiB" => 40,
            _ => -1,
        };
        bool isNumber = ulong.TryParse(number, NumberStyles.None, CultureInfo.InvariantCulture, out ulong count) && shift >= 0 && count <= ulong.MaxValue >> shift;
        bytes = isNumber ? count << shift : 0;
        return isNumber;
    }

    private static (string Number, string Unit) Split(string text)
    {
        int digits = 0;
        while (digits < text.Length && (char.IsAsciiDigit(text[digits]) || text[digits] == '.'))
        {
            digits++;
        }

        return (text[..digits], text[digits..]);
    }
}
