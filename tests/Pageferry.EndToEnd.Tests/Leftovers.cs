namespace Pageferry.EndToEnd.Tests;

/// <summary>What a command that starts guests' processes must not leave behind.</summary>
internal static class Leftovers
{
    /// <summary>The processes that a command started, told by the directory in their command lines; and the directories themselves.</summary>
    /// <param name="pid">The command's process id, which its directory's name carries.</param>
    /// <param name="command">The command's name, which it carries too.</param>
    public static string[] Of(int pid, string command = "demo")
    {
        string mark = $"pageferry-{command}-{pid}-";
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
