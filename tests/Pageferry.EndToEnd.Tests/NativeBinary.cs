using System.Runtime.CompilerServices;

[assembly: AssemblyFixture(typeof(Pageferry.EndToEnd.Tests.NativeBinary))]

namespace Pageferry.EndToEnd.Tests;

/// <summary>
/// The command as NativeAOT makes it, published into <c>artifacts/native</c> before the first test. Tests run it because they start hundreds of processes, which spend most of their
/// time on compiling where the runtime does that.
/// </summary>
public sealed class NativeBinary : IAsyncLifetime
{
    /// <summary>The directory of the repository.</summary>
    internal static string Root { get; } = Path.GetFullPath(Path.Combine(Here(), "../.."));

    /// <summary>Publishes the binary unless it is newer than everything it is made of.</summary>
    public async ValueTask InitializeAsync()
    {
        string output = Path.Combine(Root, "artifacts", "native");
        string binary = Path.Combine(output, "pageferry");
        if (!File.Exists(binary) || File.GetLastWriteTimeUtc(binary) <= LastChange())
        {
            using PageferryProcess publish = await PageferryProcess.RunProgramAsync(
                "dotnet", "publish", Path.Combine(Root, "src/Pageferry.Cli"), "-c", "Release", "-o", output, "--nologo", "-v", "quiet");
            Assert.True(publish.ExitCode == 0, publish.Output + publish.Errors);

            // What did not change is not written again; say that it was looked at.
            File.SetLastWriteTimeUtc(binary, DateTime.UtcNow);
        }

        PageferryProcess.Program = binary;
    }

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;

    private static DateTime LastChange()
    {
        IEnumerable<string> sources = Directory.EnumerateFiles(Path.Combine(Root, "src"), "*.cs*", SearchOption.AllDirectories)
            .Where(file => !file.Contains("/obj/", StringComparison.Ordinal) && !file.Contains("/bin/", StringComparison.Ordinal))
            .Concat(Directory.EnumerateFiles(Root, "Directory.*.props"));
        return sources.Max(File.GetLastWriteTimeUtc);
    }

    private static string Here([CallerFilePath] string file = "") => Path.GetDirectoryName(file)!;
}
