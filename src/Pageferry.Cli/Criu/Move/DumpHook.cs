using System.Text;

namespace Pageferry.Cli;

/// <summary>
/// What <c>criu dump</c> runs when it has dumped (<c>--action-script</c>): it waits there to be told how the move ends. Once it serves lazy pages it frees TCP connections no more, also if it then
/// lets the processes go on: they stay locked, and in repair mode. If the script fails it frees them first.
/// </summary>
internal sealed class DumpHook : IDisposable
{
    private const string Dumped = "dumped";
    private const string GoesOn = "goes on";
    private const string Ends = "ends";
    private const string Held = "held";
    private const string End = "end";

    /// <summary>Nothing but a shell. If all who could tell it are gone, what is not held goes on.</summary>
    private const string Script = $"""
        #!/bin/sh
        [ $CRTOOLS_SCRIPT_ACTION = post-dump ] || exit 0
        exec <"$0.answer"
        echo {Dumped} >"$0.said"
        status=1
        while read -r answer; do
            case $answer in
            "{GoesOn}") exit 1 ;;
            {Held}) status=0 ;;
            {Ends}) exit 0 ;;
            esac
        done
        exit $status
        """;

    private readonly FileStream _said;
    private readonly FileStream _answer;
    private readonly TaskCompletionSource _isDumped = new(TaskCreationOptions.RunContinuationsAsynchronously);

    private DumpHook(string path, FileStream said, FileStream answer)
    {
        Path = path;
        _said = said;
        _answer = answer;
        new Thread(Listen) { IsBackground = true, Name = "dump hook" }.Start();
    }

    /// <summary>The script.</summary>
    internal string Path { get; }

    /// <summary>Completes when all is dumped, and the processes are frozen until it is told how that ends.</summary>
    internal Task IsDumped => _isDumped.Task;

    /// <summary>Makes the script and its pipes.</summary>
    /// <param name="directory">Where to; nobody else's.</param>
    /// <exception cref="CommandException">The pipes can't be made.</exception>
    internal static async Task<DumpHook> MakeAsync(string directory)
    {
        string path = System.IO.Path.Combine(directory, "hook");
        await RestoreHook.WriteAsync(path, Script);
        return new DumpHook(path, RestoreHook.OpenPipe($"{path}.said"), OpenAnswer(directory));
    }

    /// <summary>Opens the pipe that the script reads, so that there always is somebody who writes to it.</summary>
    internal static FileStream OpenAnswer(string directory) => RestoreHook.OpenPipe(System.IO.Path.Combine(directory, "hook.answer"));

    /// <summary>Tells a script by its pipe that the processes go on, with their connections.</summary>
    internal static void GoOn(FileStream answer) => Write(answer, GoesOn);

    /// <summary>The processes go on, with their connections.</summary>
    internal void GoOn() => GoOn(_answer);

    /// <summary>From now on nothing but <see cref="GoOn()"/> frees their connections.</summary>
    internal void Hold() => Write(_answer, Held);

    /// <summary>The processes end, their connections are elsewhere.</summary>
    internal void Finish() => Write(_answer, Ends);

    /// <inheritdoc/>
    public void Dispose()
    {
        // Ends the thread, which then closes what it reads.
        Write(_said, End);
        _answer.Dispose();
    }

    private static void Write(FileStream pipe, string line) => pipe.Write(Encoding.UTF8.GetBytes($"{line}\n"));

    private void Listen()
    {
        using var lines = new StreamReader(_said);
        while (lines.ReadLine() is { } line && line != End)
        {
            _ = line == Dumped && _isDumped.TrySetResult();
        }
    }
}
