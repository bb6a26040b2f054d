namespace Pageferry.Cli.Tests;

/// <summary>A directory for a test's sockets and files, removed with all that is in it.</summary>
internal sealed class TemporaryDirectory : IDisposable
{
    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("pageferry-test-");

    public string Path(string name) => System.IO.Path.Combine(_directory.FullName, name);

    public void Dispose()
    {
        // The test's processes may have removed it already.
        if (Directory.Exists(_directory.FullName))
        {
            _directory.Delete(recursive: true);
        }
    }
}
