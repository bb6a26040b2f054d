namespace Pageferry.Fuzz;

/// <summary>The stored messages: a folder for each target, a file for each message.</summary>
internal static class Corpus
{
    private static readonly string s_folder = Path.Combine(AppContext.BaseDirectory, "corpus");

    /// <summary>What is stored for a target.</summary>
    internal static IReadOnlyList<byte[]> Of(FuzzTarget target) =>
        [.. Directory.GetFiles(Path.Combine(s_folder, target.Name)).Order(StringComparer.Ordinal).Select(File.ReadAllBytes)];

    /// <summary>Stores the messages anew, after a change of the protocol.</summary>
    internal static void Write(string folder)
    {
        foreach (FuzzTarget target in FuzzTargets.All)
        {
            string own = Directory.CreateDirectory(Path.Combine(folder, target.Name)).FullName;
            int number = 0;
            foreach (byte[] seed in Seeds.Of(target.Name))
            {
                File.WriteAllBytes(Path.Combine(own, $"{number++}"), seed);
            }
        }
    }
}
