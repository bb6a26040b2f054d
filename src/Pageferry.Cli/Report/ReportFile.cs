namespace Pageferry.Cli;

/// <summary>The file that a report goes to. It appears whole or not at all.</summary>
internal sealed class ReportFile
{
    /// <summary>What its name ends with: so no mistyped path replaces a guest's image or a device.</summary>
    internal const string Extension = ".html";

    private readonly string _path;

    private ReportFile(string path) => _path = path;

    /// <summary>Where the report is; null before it is written.</summary>
    internal string? WrittenTo { get; private set; }

    /// <summary>Why it could not be written; null if it could.</summary>
    internal string? Error { get; private set; }

    /// <summary>Finds out whether a report can be written, before the work that it is about begins.</summary>
    /// <param name="path">Where it is to be; null for no report.</param>
    /// <returns>The file, which is not there yet; null for no report.</returns>
    /// <exception cref="CommandException">It can't be written there.</exception>
    internal static ReportFile? At(string? path)
    {
        if (path is null)
        {
            return null;
        }

        if (!path.EndsWith(Extension, StringComparison.Ordinal) || !Path.IsPathFullyQualified(path) || Directory.Exists(path))
        {
            throw new CommandException($"Could not write a report to {path}: a report is a file with an absolute path that ends with {Extension}.");
        }

        var file = new ReportFile(path);
        try
        {
            File.WriteAllBytes(file.Temporary, []);
            File.Delete(file.Temporary);
            return file;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CommandException($"Could not write a report to {path}: {e.Message} Nothing was done; choose a directory that exists and that the guest's process may write to.");
        }
    }

    /// <summary>Writes the report. A failure is told, and changes nothing else.</summary>
    /// <param name="make">Makes the report.</param>
    /// <returns>Where it is, or why it is not, for a reader.</returns>
    internal string Write(Func<MigrationReport> make)
    {
        try
        {
            File.WriteAllText(Temporary, ReportPage.Of(make()));
            File.Move(Temporary, _path, overwrite: true);
            WrittenTo = _path;
            Error = null;
            return $"The report is in {_path}.";
        }
        catch (Exception e)
        {
            Error = $"Could not write the report to {_path}: {e.Message}";
            return Error;
        }
    }

    private string Temporary => $"{_path}.{Environment.ProcessId}.tmp";
}
