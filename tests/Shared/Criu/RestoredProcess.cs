using System.Diagnostics;

namespace Pageferry.Testing;

/// <summary>A pid, a mount and a network namespace in which a command runs, and what it leaves running.</summary>
internal sealed class RestoredProcess : IDisposable
{
    private readonly Process _namespaces;

    private RestoredProcess(Process namespaces) => _namespaces = namespaces;

    /// <summary>Begins to run a command.</summary>
    internal static RestoredProcess Start(string program, string[] arguments)
    {
        // The first process of the namespace stays: with it ends whatever else is there.
        const string Script = "ip link set lo up; \"$@\" >&2; echo $?; exec sleep infinity";
        var info = new ProcessStartInfo("unshare", ["-p", "-f", "-m", "--mount-proc", "-n", "--kill-child", "sh", "-c", Script, "sh", program, .. arguments])
        {
            UseShellExecute = false,
            RedirectStandardOutput = true,
        };
        return new RestoredProcess(Process.Start(info)!);
    }

    /// <summary>What the command ended with.</summary>
    internal async Task<string> ResultAsync()
    {
        using var limit = new CancellationTokenSource(TimeSpan.FromMinutes(2));
        return await _namespaces.StandardOutput.ReadLineAsync(limit.Token) ?? "nothing";
    }

    /// <summary>Ends all that runs there. When this returns nothing of it runs, which may write to what the next process writes to.</summary>
    public void Dispose()
    {
        string[] first = _namespaces.HasExited
            ? []
            : File.ReadAllText($"/proc/{_namespaces.Id}/task/{_namespaces.Id}/children").Split(' ', StringSplitOptions.RemoveEmptyEntries);
        _namespaces.Kill();
        _namespaces.WaitForExit();
        _namespaces.Dispose();
        Assert.True(SpinWait.SpinUntil(() => Array.TrueForAll(first, HasEnded), TimeSpan.FromSeconds(30)));
    }

    /// <summary>The first process of a pid namespace ends when all others there have.</summary>
    private static bool HasEnded(string pid)
    {
        try
        {
            return File.ReadLines($"/proc/{pid}/status").Any(line => line.StartsWith("State:\tZ", StringComparison.Ordinal));
        }
        catch (IOException)
        {
            return true;
        }
    }
}
