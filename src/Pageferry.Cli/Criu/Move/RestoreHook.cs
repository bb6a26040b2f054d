using System.Diagnostics;
using System.Text;

namespace Pageferry.Cli;

/// <summary>
/// What <c>criu restore</c> runs on its way (<c>--action-script</c>): when the processes stand ready it waits to be told whether they may run, and says when they do. Without an answer CRIU gives
/// the restore up, and kills them before they have run.
/// </summary>
internal sealed class RestoreHook : IDisposable
{
    private const string Ready = "restored";
    private const string Resuming = "resuming";
    private const string Runs = "running";
    private const string Told = "told";
    private const string End = "end";

    /// <summary>
    /// Nothing but a shell, which is there and starts within a millisecond. <c>timeout</c> ends it if this process is gone; it is far beyond what this process takes to decide.
    /// </summary>
    private const string Script = $"""
        #!/bin/sh
        case $CRTOOLS_SCRIPT_ACTION in
        post-restore) [ "$1" = inner ] || exec timeout 300 "$0" inner
            echo {Ready} >"$0.said"; read -r answer <"$0.answer"; [ "$answer" = start ] ;;
        pre-resume) [ "$1" = inner ] || exec timeout 60 "$0" inner
            echo {Resuming} >"$0.said" ;;
        post-resume) [ "$1" = inner ] || exec timeout 60 "$0" inner
            echo {Runs} >"$0.said" ;;
        esac
        """;

    private readonly FileStream _said;
    private readonly FileStream _answer;
    private readonly TaskCompletionSource _isRestored = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _isAllRead = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _isRunning = new(TaskCreationOptions.RunContinuationsAsynchronously);

    private RestoreHook(string path, FileStream said, FileStream answer)
    {
        Path = path;
        _said = said;
        _answer = answer;
        new Thread(Listen) { IsBackground = true, Name = "restore hook" }.Start();
    }

    /// <summary>The script.</summary>
    internal string Path { get; }

    /// <summary>Completes when the processes stand ready.</summary>
    internal Task IsRestored => _isRestored.Task;

    /// <summary>Whether the processes were held by nothing but CRIU any more: they run when it lets them go, and when it is killed.</summary>
    internal bool IsResuming { get; private set; }

    /// <summary>Completes when the processes run.</summary>
    internal Task IsRunning => _isRunning.Task;

    /// <summary>Makes the script and its pipes.</summary>
    /// <param name="directory">Where to; nobody else's.</param>
    /// <exception cref="CommandException">The pipes can't be made.</exception>
    internal static async Task<RestoreHook> MakeAsync(string directory)
    {
        string path = System.IO.Path.Combine(directory, "hook");
        await WriteAsync(path, Script);
        return new RestoreHook(path, OpenPipe($"{path}.said"), OpenPipe($"{path}.answer"));
    }

    /// <summary>Writes a script and makes the pipes beside it: <c>.said</c> for what it says, <c>.answer</c> for what it is told.</summary>
    /// <exception cref="CommandException">The pipes can't be made.</exception>
    internal static async Task WriteAsync(string path, string script)
    {
        await File.WriteAllTextAsync(path, script);
        File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        using Process mkfifo = Process.Start("mkfifo", ["-m", "600", $"{path}.said", $"{path}.answer"]);
        await mkfifo.WaitForExitAsync();
        if (mkfifo.ExitCode != 0)
        {
            throw new CommandException($"Could not make pipes at {path}: mkfifo ended with {mkfifo.ExitCode}.");
        }
    }

    /// <summary>Opens a pipe for both, so that neither end waits for the other to open its own; and a script sees an end of its pipe when this process is gone.</summary>
    internal static FileStream OpenPipe(string path) => new(path, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite, bufferSize: 0);

    /// <summary>Says whether the processes may run.</summary>
    internal void Answer(bool start)
    {
        _answer.Write(start ? "start\n"u8 : "stop\n"u8);
        _answer.Flush();
    }

    /// <summary>Completes when all is read that CRIU's scripts have said until now.</summary>
    internal Task ReadAllAsync()
    {
        _said.Write(Encoding.UTF8.GetBytes($"{Told}\n"));
        return _isAllRead.Task;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        // Ends the thread, which then closes what it reads.
        _said.Write("end\n"u8);
        _answer.Dispose();
    }

    private void Listen()
    {
        using var lines = new StreamReader(_said);
        while (lines.ReadLine() is { } line && line != End)
        {
            IsResuming |= line == Resuming;
            _ = line switch
            {
                Ready => _isRestored.TrySetResult(),
                Runs => _isRunning.TrySetResult(),
                Told => _isAllRead.TrySetResult(),
                _ => false,
            };
        }
    }
}
