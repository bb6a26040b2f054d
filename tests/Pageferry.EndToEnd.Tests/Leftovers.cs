namespace Pageferry.EndToEnd.Tests;

/// <summary>What a demo must not leave behind.</summary>
internal static class Leftovers
{
    /// <summary>The processes that a demo started, told by the directory in their command lines; and the directories themselves.</summary>
    /// <param name="demoPid">The demo's process id, which its directory's name carries.</param>
    public static string[] Of(int demoPid)
    {
        string mark = $"pageferry-demo-{demoPid}-";
        IEnumerable<string> processes = Directory.EnumerateDirectories("/proc")
            .Where(directory => char.IsAsciiDigit(Path.GetFileName(directory)[0]))
            .Select(CommandLine)
            .Where(line => line.Contains(mark, StringComparison.Ordinal));
        return [.. processes, .. Directory.EnumerateDirectories(Path.GetTempPath(), mark + "*")];
    }

    private static string CommandLine(string process)
    {
        try
        {
            return File.ReadAllText(Path.Combine(process, "cmdline")).Replace('\0', ' ');
        }
        catch (IOException)
        {
            // It ended meanwhile.
            return string.Empty;
        }
    }
}
