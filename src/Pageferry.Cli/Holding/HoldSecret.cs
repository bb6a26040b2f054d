using System.Globalization;

namespace Pageferry.Cli;

/// <summary>
/// The secrets of what sources left at a holder: files beside its socket that only their user can read, so that whoever serves on finds them. One is written when its record is
/// kept, and removed with it.
/// </summary>
internal static class HoldSecret
{
    private const string Ending = ".secret";

    /// <summary>Writes one.</summary>
    /// <param name="holder">The holder's socket.</param>
    /// <param name="name">What it is of.</param>
    /// <param name="secret">The secret.</param>
    /// <exception cref="IOException">It can't be written there.</exception>
    internal static void Write(string holder, string name, byte[] secret)
    {
        try
        {
            var options = new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write, UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite };
            using var writer = new StreamWriter(PathOf(holder, name), options);
            writer.Write(Convert.ToHexStringLower(secret));
        }
        catch (UnauthorizedAccessException e)
        {
            throw new IOException($"Could not write the secret of what is kept at {holder}: {e.Message}", e);
        }
    }

    /// <summary>Removes one, if it is there.</summary>
    /// <param name="holder">The holder's socket.</param>
    /// <param name="name">What it is of.</param>
    internal static void Remove(string holder, string name)
    {
        try
        {
            File.Delete(PathOf(holder, name));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // It opens nothing any more.
        }
    }

    /// <summary>Finds those that are there, the oldest first.</summary>
    /// <param name="holder">The holder's socket.</param>
    /// <exception cref="CommandException">They can't be read.</exception>
    internal static IReadOnlyList<(string Name, byte[] Secret)> Find(string holder)
    {
        string path = Path.GetFullPath(holder);
        string prefix = $"{Path.GetFileName(path)}.";
        var found = new List<(string Name, byte[] Secret)>();
        try
        {
            foreach (FileInfo file in new DirectoryInfo(Path.GetDirectoryName(path)!).EnumerateFiles($"{prefix}*{Ending}").OrderBy(static file => file.LastWriteTimeUtc))
            {
                string name = file.Name[prefix.Length..^Ending.Length];
                if (HoldPacket.IsName(name) && file.Length == 2 * HoldPacket.SecretBytes && Parse(File.ReadAllText(file.FullName)) is { } secret)
                {
                    found.Add((name, secret));
                }
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CommandException($"Could not read the secrets of what is kept at {holder}: {e.Message} They are beside its socket, for the user whose source left them.");
        }

        return found;
    }

    private static byte[]? Parse(string text) => text.All(char.IsAsciiHexDigit) ? Convert.FromHexString(text) : null;

    private static string PathOf(string holder, string name) => string.Create(CultureInfo.InvariantCulture, $"{holder}.{name}{Ending}");
}
