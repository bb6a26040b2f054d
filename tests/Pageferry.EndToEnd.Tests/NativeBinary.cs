using System.Runtime.CompilerServices;

namespace Pageferry.EndToEnd.Tests;

/// <summary>The command as NativeAOT makes it, published into <c>artifacts/native</c>.</summary>
internal static class NativeBinary
{
    private static readonly SemaphoreSlim s_one = new(1, 1);

    /// <summary>The directory of the repository.</summary>
    public static string Root { get; } = Path.GetFullPath(Path.Combine(Here(), "../.."));

    /// <summary>Publishes the binary unless it is newer than everything it is made of.</summary>
    public static async Task<string> PublishAsync()
    {
        string output = Path.Combine(Root, "artifacts", "native");
        string binary = Path.Combine(output, "pageferry");
        await s_one.WaitAsync();
        try
        {
            if (File.Exists(binary) && File.GetLastWriteTimeUtc(binary) > LastChange())
            {
                return binary;
            }

            using PageferryProcess publish = await PageferryProcess.RunProgramAsync(
                "dotnet", "publish", Path.Combine(Root, "src/Pageferry.Cli"), "-c", "Release", "-o", output, "--nologo", "-v", "quiet");
            Assert.True(publish.ExitCode == 0, publish.Output + publish.Errors);

            // What did not change is not written again; say that it was looked at.
            File.SetLastWriteTimeUtc(binary, DateTime.UtcNow);
            return binary;
        }
        finally
        {
            _ = s_one.Release();
        }
    }

    private static DateTime LastChange()
    {
        IEnumerable<string> sources = Directory.EnumerateFiles(Path.Combine(Root, "src"), "*.cs*", SearchOption.AllDirectories)
            .Where(file => !file.Contains("/obj/", StringComparison.Ordinal) && !file.Contains("/bin/", StringComparison.Ordinal))
            .Concat(Directory.EnumerateFiles(Root, "Directory.*.props"));
        return sources.Max(File.GetLastWriteTimeUtc);
    }

    private static string Here([CallerFilePath] string file = "") => Path.GetDirectoryName(file)!;
}
