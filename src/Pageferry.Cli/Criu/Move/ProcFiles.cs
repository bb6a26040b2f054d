using System.Globalization;

namespace Pageferry.Cli;

/// <summary>What the kernel tells of processes in /proc. What has ended meanwhile reads as nothing.</summary>
internal static class ProcFiles
{
    /// <summary>The lines of a file.</summary>
    internal static string[] Lines(string path)
    {
        try
        {
            return File.ReadAllLines(path);
        }
        catch (Exception gone) when (gone is IOException or UnauthorizedAccessException)
        {
            return [];
        }
    }

    /// <summary>The entries of a directory whose names are numbers.</summary>
    internal static IEnumerable<int> Numbers(string directory)
    {
        try
        {
            return [.. Directory.GetFileSystemEntries(directory).Select(Path.GetFileName).Where(static name => int.TryParse(name, NumberStyles.None, CultureInfo.InvariantCulture, out _))
                .Select(static name => int.Parse(name!, CultureInfo.InvariantCulture))];
        }
        catch (Exception gone) when (gone is IOException or UnauthorizedAccessException)
        {
            return [];
        }
    }

    /// <summary>Where a link leads, as the kernel writes it; null without.</summary>
    internal static string? Link(string path)
    {
        try
        {
            return new FileInfo(path).LinkTarget;
        }
        catch (Exception gone) when (gone is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <summary>A field of a status file, such as <c>TracerPid</c>; empty without.</summary>
    internal static string Status(string directory, string field) =>
        Lines($"{directory}/status").FirstOrDefault(line => line.StartsWith(field + ":", StringComparison.Ordinal)) is { } line ? line[(field.Length + 1)..].Trim() : string.Empty;

    /// <summary>The state letter and the fields that follow the command's name in a stat file; empty if there is no such process.</summary>
    internal static string[] Stat(int pid)
    {
        string text = string.Concat(Lines($"/proc/{pid}/stat"));
        int close = text.LastIndexOf(')');
        return close < 0 ? [] : text[(close + 1)..].Split(' ', StringSplitOptions.RemoveEmptyEntries);
    }
}
