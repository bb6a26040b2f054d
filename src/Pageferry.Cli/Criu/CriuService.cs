using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using System.Text;
using Microsoft.Extensions.Logging;
using Microsoft.Win32.SafeHandles;
using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary>A command that takes the place of one of CRIU's, while it runs: where it logs, and who hears that it is ready.</summary>
internal sealed class CriuService
{
    private readonly CriuSettings _settings;

    private CriuService(CriuSettings settings, ILogger logger)
    {
        _settings = settings;
        Logger = logger;
    }

    /// <summary>The log.</summary>
    internal ILogger Logger { get; }

    /// <summary>Runs a command in this process, or in one that stays in the background.</summary>
    /// <param name="settings">How.</param>
    /// <param name="run">Does what the command is for, and calls <see cref="TellReady"/> meanwhile.</param>
    /// <returns>The exit status.</returns>
    /// <exception cref="CommandException">A file can't be written.</exception>
    internal static async Task<int> RunAsync(CriuSettings settings, Func<CriuService, Task<int>> run)
    {
        if (settings.InBackground && !settings.IsInBackground)
        {
            return await StartInBackgroundAsync();
        }

        if (settings.IsInBackground)
        {
            CurrentProcess.BeginSession();
        }

        await using TextWriter? log = settings.LogFile is { } file ? Open(file, "the log") : null;
        return await run(new CriuService(settings, new CriuLogger(log ?? Console.Error, settings.LogLevel)));
    }

    /// <summary>Why a socket could not do something: the exception's own message may end with the address, which the reader is told anyway.</summary>
    internal static string Reason(SocketException failure) => new SocketException((int)failure.SocketErrorCode).Message;

    /// <summary>Tells everybody who waits for it that the command is ready.</summary>
    /// <param name="line">What to tell a reader of standard output; null if that is for something else.</param>
    /// <exception cref="CommandException">The file for the process id or the file descriptor can't be written.</exception>
    internal void TellReady(string? line)
    {
        if (_settings.PidFile is { } pidFile)
        {
            using TextWriter file = Open(pidFile, "the process id");
            file.Write(Environment.ProcessId.ToString(CultureInfo.InvariantCulture));
        }

        if (_settings.StatusFd is { } fd)
        {
            try
            {
                using var handle = new SafeFileHandle(fd, ownsHandle: true);
                using var status = new FileStream(handle, FileAccess.Write, bufferSize: 0);
                status.WriteByte(0);
            }
            catch (Exception failure) when (failure is IOException or UnauthorizedAccessException or ArgumentException)
            {
                throw new CommandException($"Could not write to file descriptor {fd} that the command is ready: {failure.Message} Give --status-fd a descriptor that is open for writing.");
            }
        }

        if (_settings.IsInBackground)
        {
            // The process that started this one reads to here.
            Console.Error.Write('\0');
        }
        else if (line is not null)
        {
            Console.Out.WriteLine(line);
        }
    }

    private static StreamWriter Open(string path, string what)
    {
        try
        {
            return new StreamWriter(path, append: false);
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            throw new CommandException($"Could not write {what} to {path}: {failure.Message}");
        }
    }

    /// <summary>Starts the same command as another process, and waits until it is ready or has failed, and said why.</summary>
    private static async Task<int> StartInBackgroundAsync()
    {
        ProcessStartInfo info = SelfCommand.StartInfo([.. Environment.GetCommandLineArgs().AsSpan(1), "--in-background"]);
        info.RedirectStandardInput = true;
        info.RedirectStandardOutput = true;
        info.RedirectStandardError = true;
        using Process process = Process.Start(info)!;
        var said = new StringBuilder();
        var buffer = new char[256];
        while (await process.StandardError.ReadAsync(buffer) is > 0 and var length)
        {
            int end = buffer.AsSpan(0, length).IndexOf('\0');
            _ = said.Append(buffer, 0, end < 0 ? length : end);
            if (end >= 0)
            {
                await Console.Error.WriteAsync(said);
                return ExitCode.Done;
            }
        }

        await Console.Error.WriteAsync(said);
        await process.WaitForExitAsync();
        return process.ExitCode;
    }
}
