using System.Diagnostics;
using System.Globalization;

namespace Pageferry.Cli;

/// <summary>
/// A <c>vm run</c> or <c>vm receive</c> process that this process starts. It holds the other end of a pipe: when this process ends, however it
/// ends, the pipe closes and the child ends too.
/// </summary>
internal sealed class ChildVm : IDisposable
{
    /// <summary>How many of the child's last error lines are kept to explain its end.</summary>
    private const int KeptLines = 8;

    private static readonly TimeSpan s_pollInterval = TimeSpan.FromMilliseconds(20);

    private readonly string _name;
    private readonly string _controlPath;
    private readonly Process _process;
    private readonly Queue<string> _lastErrors = new();
    private ControlClient? _client;

    private ChildVm(string name, string controlPath, Process process)
    {
        _name = name;
        _controlPath = controlPath;
        _process = process;
    }

    /// <summary>The process's id.</summary>
    internal int Pid => _process.Id;

    /// <summary>Starts the process.</summary>
    /// <param name="name">What messages call it: "source" or "destination".</param>
    /// <param name="controlPath">The control socket that it makes.</param>
    /// <param name="arguments">Its command line, without what ties it to this process.</param>
    /// <returns>The child, which the caller disposes.</returns>
    internal static ChildVm Start(string name, string controlPath, params ReadOnlySpan<string> arguments)
    {
        ProcessStartInfo info = SelfCommand.StartInfo([.. arguments, "--control", controlPath, "--end-with-input"]);
        info.RedirectStandardInput = true;
        info.RedirectStandardOutput = true;
        info.RedirectStandardError = true;
        var child = new ChildVm(name, controlPath, new Process { StartInfo = info });
        child._process.OutputDataReceived += static (_, _) => { };
        child._process.ErrorDataReceived += (_, line) => child.Keep(line.Data);
        _ = child._process.Start();
        child._process.BeginOutputReadLine();
        child._process.BeginErrorReadLine();
        return child;
    }

    /// <summary>Waits until the process takes requests.</summary>
    /// <param name="cancellation">Ends the waiting.</param>
    /// <exception cref="CommandException">The process ended instead; the message carries its own.</exception>
    internal async Task ConnectAsync(CancellationToken cancellation)
    {
        while (_client is null)
        {
            await ThrowIfEndedAsync(cancellation);
            try
            {
                _client = ControlClient.Connect(_controlPath);
            }
            catch (CommandException)
            {
                // Not there yet; ThrowIfEnded tells when it never will be.
                await Task.Delay(s_pollInterval, cancellation);
            }
        }
    }

    /// <summary>Asks for the guest's state.</summary>
    /// <param name="cancellation">Ends the waiting.</param>
    /// <returns>The state.</returns>
    /// <exception cref="CommandException">The process ended; the message carries its own.</exception>
    internal Task<VmStatus> StatusAsync(CancellationToken cancellation) =>
        AskAsync(new ControlRequest { Command = ControlRequest.Status }, cancellation);

    /// <summary>Sends a request on a connection of its own and waits for its last answer.</summary>
    /// <param name="request">What to do.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    /// <returns>The state in the last answer.</returns>
    /// <exception cref="CommandException">The request failed or the process ended; the message carries its own.</exception>
    internal async Task<VmStatus> AskApartAsync(ControlRequest request, CancellationToken cancellation)
    {
        using ControlClient client = ControlClient.Connect(_controlPath);
        return await ExplainAsync(client.LastStatusAsync(request, cancellation), cancellation);
    }

    /// <summary>Sends a request and waits for its last answer.</summary>
    /// <param name="request">What to do.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    /// <returns>The state in the last answer.</returns>
    /// <exception cref="CommandException">The request failed or the process ended; the message carries its own.</exception>
    internal Task<VmStatus> AskAsync(ControlRequest request, CancellationToken cancellation) =>
        ExplainAsync(_client!.LastStatusAsync(request, cancellation), cancellation);

    /// <summary>
    /// Stops the process (<c>SIGSTOP</c>) for a while. What lets it go on is a process of its own: if this one is killed meanwhile, the child goes on and ends.
    /// </summary>
    /// <param name="time">How long.</param>
    /// <param name="cancellation">Ends the waiting, not the stop.</param>
    internal async Task StopAsync(TimeSpan time, CancellationToken cancellation)
    {
        string seconds = time.TotalSeconds.ToString("F3", CultureInfo.InvariantCulture);
        using var stop = Process.Start("/bin/sh", ["-c", "kill -STOP $0 && sleep $1; kill -CONT $0 2>/dev/null", Pid.ToString(CultureInfo.InvariantCulture), seconds]);
        await stop.WaitForExitAsync(cancellation);
    }

    /// <summary>Kills the process if it still runs, and reaps it. Whoever waits for an answer of it hears that it ended.</summary>
    internal void Kill()
    {
        try
        {
            _process.Kill();
            _process.WaitForExit();
        }
        catch (InvalidOperationException)
        {
            // It never started.
        }
    }

    /// <summary>Kills the process if it still runs, and reaps it.</summary>
    public void Dispose()
    {
        _client?.Dispose();
        Kill();
        _process.Dispose();
    }

    private async Task<VmStatus> ExplainAsync(Task<VmStatus> asked, CancellationToken cancellation)
    {
        try
        {
            return await asked;
        }
        catch (CommandException)
        {
            // When the process is gone, its own last words explain more than a closed connection.
            using var soon = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            soon.CancelAfter(TimeSpan.FromSeconds(1));
            try
            {
                await _process.WaitForExitAsync(soon.Token);
            }
            catch (OperationCanceledException)
            {
                cancellation.ThrowIfCancellationRequested();
            }

            await ThrowIfEndedAsync(cancellation);
            throw;
        }
    }

    private async Task ThrowIfEndedAsync(CancellationToken cancellation)
    {
        if (!_process.HasExited)
        {
            return;
        }

        // Waits for the end of its output too.
        await _process.WaitForExitAsync(cancellation);
        string words;
        lock (_lastErrors)
        {
            words = string.Join(Environment.NewLine, _lastErrors);
        }

        const string Prefix = "pageferry: ";
        string reason = words.StartsWith(Prefix, StringComparison.Ordinal) ? words[Prefix.Length..] : words;
        throw new CommandException(reason.Length > 0 ? $"The {_name} failed. {reason}" : $"The {_name} process ended with code {_process.ExitCode} and said nothing.");
    }

    private void Keep(string? line)
    {
        if (line is null)
        {
            return;
        }

        lock (_lastErrors)
        {
            _lastErrors.Enqueue(line);
            if (_lastErrors.Count > KeptLines)
            {
                _ = _lastErrors.Dequeue();
            }
        }
    }
}
