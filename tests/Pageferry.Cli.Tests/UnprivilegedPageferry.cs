namespace Pageferry.Cli.Tests;

/// <summary>A copy of the built command that a user without any privilege can run.</summary>
internal sealed class UnprivilegedPageferry : IDisposable
{
    private const string Nobody = "65534";

    private readonly DirectoryInfo _copy;

    private UnprivilegedPageferry(DirectoryInfo copy) => _copy = copy;

    public static UnprivilegedPageferry OrSkip()
    {
        if (!Environment.IsPrivilegedProcess)
        {
            Assert.Skip("Only root can become another user.");
        }

        if (File.ReadAllText("/proc/sys/vm/unprivileged_userfaultfd").Trim() is not "0")
        {
            Assert.Skip("vm.unprivileged_userfaultfd is 1: every user may use userfaultfd here.");
        }

        DirectoryInfo copy = Directory.CreateTempSubdirectory("pageferry-test-");
        copy.UnixFileMode |= UnixFileMode.OtherRead | UnixFileMode.OtherExecute;
        foreach (string file in Directory.EnumerateFiles(AppContext.BaseDirectory))
        {
            File.Copy(file, Path.Combine(copy.FullName, Path.GetFileName(file)));
        }

        return new UnprivilegedPageferry(copy);
    }

    public Task<PageferryProcess> RunAsync(params string[] arguments) => PageferryProcess.RunProgramAsync("setpriv", Line(arguments));

    public PageferryProcess Start(params string[] arguments) => PageferryProcess.StartProgram("setpriv", Line(arguments));

    /// <summary>A path that the user may write.</summary>
    public string Writable(string name)
    {
        DirectoryInfo directory = _copy.CreateSubdirectory("writable");
        directory.UnixFileMode |= UnixFileMode.OtherRead | UnixFileMode.OtherWrite | UnixFileMode.OtherExecute;
        return Path.Combine(directory.FullName, name);
    }

    public void Dispose() => _copy.Delete(recursive: true);

    private string[] Line(string[] arguments) =>
        ["--reuid", Nobody, "--regid", Nobody, "--clear-groups", "env", "HOME=/tmp", Path.Combine(_copy.FullName, "pageferry"), .. arguments];
}
