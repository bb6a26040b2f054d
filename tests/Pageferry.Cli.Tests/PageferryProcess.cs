using System.Diagnostics;
using System.Text;

namespace Pageferry.Cli.Tests;

/// <summary>A process of the command, killed when the test is done with it.</summary>
internal sealed class PageferryProcess : IDisposable
{
    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(5);

    private readonly Process _process;
    private readonly StringBuilder _output = new();
    private readonly StringBuilder _errors = new();

    private PageferryProcess(Process process) => _process = process;

    /// <summary>The command as the build made it, which the runtime compiles as it goes.</summary>
    public static string Built { get; } = Path.Combine(AppContext.BaseDirectory, "pageferry");

    /// <summary>The command that tests run: as the build made it, unless their project has another one.</summary>
    public static string Program { get; set; } = Built;

    public int Pid => _process.Id;

    public bool HasExited => _process.HasExited;

    public int ExitCode => _process.ExitCode;

    public string Output
    {
        get
        {
            lock (_output)
            {
                return _output.ToString();
            }
        }
    }

    public string Errors
    {
        get
        {
            lock (_errors)
            {
                return _errors.ToString();
            }
        }
    }

    /// <summary>Runs the command to its end.</summary>
    public static Task<PageferryProcess> RunAsync(params string[] arguments) => RunProgramAsync(Program, arguments);

    /// <summary>Runs a program to its end, or fails when that takes longer than any test may.</summary>
    public static async Task<PageferryProcess> RunProgramAsync(string program, params string[] arguments)
    {
        PageferryProcess process = StartProgram(program, arguments);
        await process.WaitForExitAsync();
        return process;
    }

    /// <summary>Starts the command.</summary>
    public static PageferryProcess Start(params string[] arguments) => StartProgram(Program, arguments);

    /// <summary>Starts a program, with the signals as they are for what is started in a terminal: what runs the tests, in the background or under nohup, may ignore some.</summary>
    public static PageferryProcess StartProgram(string program, params string[] arguments)
    {
        var started = new PageferryProcess(new Process
        {
            StartInfo = new ProcessStartInfo("env", ["--default-signal=HUP,INT", program, .. arguments])
            {
                UseShellExecute = false,
                RedirectStandardInput = true,
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            },
        });
        started._process.OutputDataReceived += (_, line) => Append(started._output, line.Data);
        started._process.ErrorDataReceived += (_, line) => Append(started._errors, line.Data);
        _ = started._process.Start();
        started._process.BeginOutputReadLine();
        started._process.BeginErrorReadLine();
        return started;
    }

    /// <summary>Waits for the process's end.</summary>
    /// <param name="longest">How long at most; without, as long as any test may take.</param>
    public async Task WaitForExitAsync(TimeSpan? longest = null)
    {
        using var limit = new CancellationTokenSource(longest ?? s_limit);
        try
        {
            await _process.WaitForExitAsync(limit.Token);
        }
        catch (OperationCanceledException)
        {
            _process.Kill(entireProcessTree: true);
            Assert.Fail($"The process did not end within {longest ?? s_limit}. Output: {Output} Errors: {Errors}");
        }
    }

    /// <summary>Waits until something holds, or fails saying what the process wrote.</summary>
    public async Task WaitUntilAsync(Func<bool> holds, string what)
    {
        var clock = Stopwatch.StartNew();
        while (!holds())
        {
            Assert.True(clock.Elapsed < s_limit, $"Waited {s_limit} for: {what}. Output: {Output} Errors: {Errors}");
            await Task.Delay(10);
        }
    }

    /// <summary>Closes the process's standard input.</summary>
    public void CloseInput() => _process.StandardInput.Close();

    /// <summary>Sends a signal by its name: kill(1).</summary>
    public void Signal(string name) => Signal(Pid, name);

    /// <summary>Sends a process that this one started a signal by its name.</summary>
    public static void Signal(int pid, string name)
    {
        using Process kill = Process.Start("kill", [$"-{name}", $"{pid}"]);
        kill.WaitForExit();
    }

    /// <summary>kill -9.</summary>
    public void Kill() => _process.Kill();

    public void Dispose()
    {
        if (!_process.HasExited)
        {
            _process.Kill(entireProcessTree: true);
            _process.WaitForExit();
        }

        _process.Dispose();
    }

    private static void Append(StringBuilder text, string? line)
    {
        if (line is not null)
        {
            lock (text)
            {
                text.Append(line).Append('\n');
            }
        }
    }
}
