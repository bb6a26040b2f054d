using System.Text;

namespace Pageferry.Cli;

/// <summary>Files that are all written, or none of them; and nothing that is there already is touched.</summary>
internal sealed class NewFiles
{
    private readonly List<(string Path, string Content, bool IsSecret)> _files = [];

    /// <summary>Adds a file to be written.</summary>
    /// <param name="path">Where.</param>
    /// <param name="content">What.</param>
    /// <param name="isSecret">Whether only its owner may read it.</param>
    internal void Add(string path, string content, bool isSecret) => _files.Add((path, content, isSecret));

    /// <summary>Writes them.</summary>
    /// <exception cref="CommandException">One is there already, or can't be written: none of them was.</exception>
    internal void Write()
    {
        var written = new List<string>();
        string current = string.Empty;
        try
        {
            foreach ((string path, string content, bool isSecret) in _files)
            {
                current = path;
                var options = new FileStreamOptions
                {
                    Mode = FileMode.CreateNew,
                    Access = FileAccess.Write,
                    UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite | (isSecret ? UnixFileMode.None : UnixFileMode.GroupRead | UnixFileMode.OtherRead),
                };
                using var file = new FileStream(path, options);
                written.Add(path);
                file.Write(Encoding.ASCII.GetBytes(content + "\n"));
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            written.ForEach(File.Delete);
            throw new CommandException(
                Path.Exists(current)
                    ? $"Could not make {current}: it is there already, and was left as it is. Nothing was written; remove it, or choose another directory."
                    : $"Could not make {current}: {e.Message} Nothing was written.");
        }
    }
}
