using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;
using Microsoft.Extensions.Logging;

namespace Pageferry.Cli;

/// <summary>The options that the commands have because CRIU's have them, with CRIU's names and meanings, so that they fit into scripts that are there.</summary>
internal sealed class CriuOptions
{
    private static readonly LogLevel[] s_levels = [LogLevel.Critical, LogLevel.Error, LogLevel.Warning, LogLevel.Information, LogLevel.Debug];

    private readonly Option<string> _images = new("--images-dir", "-D") { Description = "The directory of the images.", HelpName = "DIR", DefaultValueFactory = _ => "." };
    private readonly Option<string?> _work = new("--work-dir", "-W") { Description = "Where other files are. Default: the directory of the images.", HelpName = "DIR" };
    private readonly Option<string?> _log = new("--log-file", "-o") { Description = "Log to a file in the work directory. Default: to standard error.", HelpName = "FILE" };
    private readonly Option<int> _verbosity = new("--verbosity", "-v")
    {
        Description = "How much to log, from 0 to 4: -v4 or -vvvv. Default: 2.",
        HelpName = "N",
        Arity = ArgumentArity.ZeroOrOne,
        DefaultValueFactory = _ => 2,
        CustomParser = ReadVerbosity,
    };

    private readonly Option<bool> _background = new("--daemon", "-d") { Description = "Go into the background once it is ready." };
    private readonly Option<bool> _isInBackground = new("--in-background") { Hidden = true };
    private readonly Option<string?> _pidFile = new("--pidfile") { Description = "Write the process id to a file in the work directory.", HelpName = "FILE" };
    private readonly Option<int?> _statusFd = new("--status-fd") { Description = "Write a zero byte to this file descriptor and close it once it is ready.", HelpName = "FD" };
    private readonly Option<bool> _tls = new("--tls") { Hidden = true };

    /// <summary>Adds the options to a command.</summary>
    /// <param name="command">The command.</param>
    internal CriuOptions(Command command)
    {
        foreach (Option option in (Option[])[_images, _work, _log, _verbosity, _background, _isInBackground, _pidFile, _statusFd, _tls])
        {
            command.Add(option);
        }

        command.Validators.Add(result =>
        {
            if (result.GetValue(_tls))
            {
                result.AddError("--tls is CRIU's own way to encrypt, which pageferry does not speak. Take the connection through a tunnel, such as ssh -L or WireGuard, and stay on loopback.");
            }
        });
    }

    /// <summary>What the user asked for.</summary>
    /// <param name="result">The command line.</param>
    internal CriuSettings Read(ParseResult result)
    {
        string images = Path.GetFullPath(result.GetRequiredValue(_images));
        string work = result.GetValue(_work) is { } directory ? Path.GetFullPath(directory) : images;
        return new CriuSettings
        {
            ImagesDirectory = images,
            WorkDirectory = work,
            LogFile = result.GetValue(_log) is { } log ? Path.Combine(work, log) : null,
            LogLevel = s_levels[Level(result)],
            InBackground = result.GetValue(_background),
            IsInBackground = result.GetValue(_isInBackground),
            PidFile = result.GetValue(_pidFile) is { } pidFile ? Path.Combine(work, pidFile) : null,
            StatusFd = result.GetValue(_statusFd),
        };
    }

    private static int ReadVerbosity(ArgumentResult result)
    {
        string text = result.Tokens[0].Value;
        if (!int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int level))
        {
            result.AddError($"'{text}' is not a value of -v. Write a number from 0 to 4.");
        }

        return level;
    }

    /// <summary>What <c>-vN</c> says, or how often there is a <c>-v</c>.</summary>
    private int Level(ParseResult result)
    {
        int level = result.GetResult(_verbosity) is { Implicit: false, Tokens.Count: 0 } counted ? counted.IdentifierTokenCount : result.GetValue(_verbosity);
        return Math.Min(level, s_levels.Length - 1);
    }
}
