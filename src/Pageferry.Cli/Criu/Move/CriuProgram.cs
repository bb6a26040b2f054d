using System.ComponentModel;
using System.Diagnostics;
using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary>The CRIU of this host.</summary>
internal sealed class CriuProgram
{
    /// <summary>What has CRIU do without hardware breakpoints. From this version on it finds out by itself.</summary>
    private const string Fault = "CRIU_FAULT";
    private const string NoBreakpoints = "130";
    private static readonly Version s_seesBreakpoints = new(4, 2);

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    private readonly string _path;

    private CriuProgram(string path, Version version)
    {
        _path = path;
        Version = version;
    }

    /// <summary>Its version.</summary>
    internal Version Version { get; }

    /// <summary>Finds it.</summary>
    /// <param name="path">The program, or its name on the PATH.</param>
    /// <returns>The CRIU.</returns>
    /// <exception cref="CommandException">There is none, or it does not say which version it is.</exception>
    internal static async Task<CriuProgram> FindAsync(string path)
    {
        (int code, string output) = await RunAsync(path, ["--version"]);
        string? line = output.Split('\n').FirstOrDefault(line => line.StartsWith("Version: ", StringComparison.Ordinal));
        return code == 0 && Version.TryParse(line?["Version: ".Length..].Trim(), out Version? version)
            ? new CriuProgram(path, version)
            : throw new CommandException($"'{path} --version' does not say which CRIU it is: {output.Trim()} Give the program with --criu.");
    }

    /// <summary>Asks it whether it can work here: <c>criu check</c>.</summary>
    /// <param name="feature">Whether it has a feature; null for what it needs in any case.</param>
    /// <returns>What is in its way, and what to do; null for nothing.</returns>
    internal async Task<string?> CheckAsync(string? feature = null)
    {
        (int code, string output) = await RunAsync(_path, feature is null ? ["check"] : ["check", "--feature", feature]);
        return code == 0 ? null : CriuAdvice.Explain(output.Split('\n'));
    }

    /// <summary>Starts it in a session of its own: Ctrl-C in this terminal is for this command, which knows what CRIU may be interrupted in.</summary>
    /// <param name="arguments">Its command line.</param>
    /// <returns>The process, which says nothing but in its log.</returns>
    internal Process Start(params IEnumerable<string> arguments)
    {
        var info = new ProcessStartInfo("setsid", [_path, .. arguments])
        {
            UseShellExecute = false,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        if (Version < s_seesBreakpoints && !info.Environment.ContainsKey(Fault) && CurrentProcess.MissesBreakpoints())
        {
            // It would wait for one for ever.
            info.Environment[Fault] = NoBreakpoints;
        }

        Process process = Process.Start(info)!;
        process.OutputDataReceived += static (_, _) => { };
        process.ErrorDataReceived += static (_, _) => { };
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
        return process;
    }

    private static async Task<(int Code, string Output)> RunAsync(string path, string[] arguments)
    {
        using var process = new Process
        {
            StartInfo = new ProcessStartInfo(path, arguments) { UseShellExecute = false, RedirectStandardOutput = true, RedirectStandardError = true },
        };
        try
        {
            _ = process.Start();
        }
        catch (Win32Exception failure)
        {
            throw new CommandException($"Could not start CRIU, '{path}': {failure.Message.TrimEnd('.')}. Install it (apt-get install criu), or say where it is with --criu.");
        }

        using var limit = new CancellationTokenSource(s_patience);
        Task<string> output = process.StandardOutput.ReadToEndAsync(limit.Token);
        Task<string> errors = process.StandardError.ReadToEndAsync(limit.Token);
        try
        {
            string all = await output + await errors;
            await process.WaitForExitAsync(limit.Token);
            return (process.ExitCode, all);
        }
        catch (OperationCanceledException)
        {
            process.Kill();
            throw new CommandException($"'{path} {string.Join(' ', arguments)}' did not end within {s_patience.TotalSeconds:F0} s.");
        }
    }
}
