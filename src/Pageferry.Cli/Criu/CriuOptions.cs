using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;
using Microsoft.Extensions.Logging;
using Pageferry.Criu;

namespace Pageferry.Cli;

/// <summary>The options that the commands have because CRIU's have them, with CRIU's names and meanings, so that they fit into scripts that are there.</summary>
internal sealed class CriuOptions
{
    private static readonly LogLevel[] s_levels = [LogLevel.Critical, LogLevel.Error, LogLevel.Warning, LogLevel.Information, LogLevel.Debug];

    /// <summary>How CRIU's own encryption is asked for.</summary>
    private static readonly string[] s_tls = ["--tls-cacert", "--tls-cacrl", "--tls-cert", "--tls-crl", "--tls-key"];

    private readonly Option<string?> _images = Word("The directory of the images. Default: this one.", "DIR", "--images-dir", "-D");
    private readonly Option<string?> _work = Word("Where other files are. Default: the directory of the images.", "DIR", "--work-dir", "-W");
    private readonly Option<string?> _log = Word("Log to a file in the work directory. Default: to standard error.", "FILE", "--log-file", "-o");
    private readonly Option<int> _verbosity = new("--verbosity", "-v")
    {
        Description = "How much to log, from 0 to 4: -v4 or -vvvv. Default: 2.",
        HelpName = "N",
        Arity = ArgumentArity.ZeroOrMore,
        DefaultValueFactory = _ => 2,
        CustomParser = ReadVerbosity,
    };

    private readonly Option<bool> _background = new("--daemon", "-d") { Description = "Go into the background once it is ready." };
    private readonly Option<bool> _isInBackground = new("--in-background") { Hidden = true };
    private readonly Option<string?> _pidFile = Word("Write the process id to a file in the work directory.", "FILE", "--pidfile");
    private readonly Option<int?> _statusFd = new("--status-fd")
    {
        Description = "Write a zero byte to this file descriptor and close it once it is ready.",
        HelpName = "FD",
        Arity = ArgumentArity.OneOrMore,
        CustomParser = result => Number(result, "--status-fd", int.MaxValue),
    };

    private readonly Option[] _tls =
    [
        new Option<bool>("--tls") { Hidden = true },
        new Option<bool>("--tls-no-cn-verify") { Hidden = true },
        .. s_tls.Select(static name => new Option<string>(name) { Hidden = true, Arity = ArgumentArity.OneOrMore }),
    ];

    /// <summary>Adds the options to a command.</summary>
    /// <param name="command">The command.</param>
    internal CriuOptions(Command command)
    {
        foreach (Option option in (Option[])[_images, _work, _log, _verbosity, _background, _isInBackground, _pidFile, _statusFd, .. _tls])
        {
            command.Add(option);
        }

        command.Validators.Add(result =>
        {
            if (Array.Find(_tls, option => result.GetResult(option) is { Implicit: false }) is { Name: var name })
            {
                result.AddError($"{name} is CRIU's own way to encrypt, which pageferry does not speak. Take the connection through a tunnel, such as ssh -L or WireGuard, and stay on loopback.");
            }
        });
    }

    /// <summary>Where a page server listens.</summary>
    /// <param name="description">Its line of help.</param>
    internal static Option<string?> Address(string description) => Word(description, "ADDRESS", "--address");

    /// <summary>The port that a page server listens at.</summary>
    /// <param name="description">Its line of help.</param>
    internal static Option<int> Port(string description) => new("--port")
    {
        Description = description,
        HelpName = "PORT",
        Arity = ArgumentArity.OneOrMore,
        CustomParser = static result => Number(result, "--port", ushort.MaxValue),
    };

    /// <summary>Which pages are fetched that nobody waits for.</summary>
    internal static Option<string> Background() => new("--background")
    {
        Description = "Which pages to fetch that nobody waits for: 'none'; or all, in the order of addresses, 'sequential', or around what was touched last first, 'locality'.",
        HelpName = "none|sequential|locality",
        DefaultValueFactory = static _ => "sequential",
        CustomParser = static result => CommonOptions.Choice(result, "none", "sequential", "locality"),
    };

    /// <summary>Reads what <see cref="Background"/> says.</summary>
    internal static BackgroundFill ReadBackground(string word) => Enum.Parse<BackgroundFill>(word, ignoreCase: true);

    /// <summary>The most that is fetched of what nobody waits for.</summary>
    internal static Option<long> MaxBandwidth() =>
        CommonOptions.Rate("--max-bandwidth", "Most bytes per second of pages that nobody waits for: a number and K, M or G; without a unit, M.");

    /// <summary>What the user asked for.</summary>
    /// <param name="result">The command line.</param>
    internal CriuSettings Read(ParseResult result)
    {
        string images = Path.GetFullPath(result.GetValue(_images) ?? ".");
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

    /// <summary>An option that may be repeated, as with getopt(3): the last one counts.</summary>
    private static Option<string?> Word(string description, string helpName, string name, params string[] aliases) => new(name, aliases)
    {
        Description = description,
        HelpName = helpName,
        Arity = ArgumentArity.OneOrMore,
        CustomParser = static result => result.Tokens[^1].Value,
    };

    private static int Number(ArgumentResult result, string name, int most)
    {
        string text = result.Tokens[^1].Value;
        if (!int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int number) || number > most)
        {
            result.AddError($"'{text}' is not a value of {name}. Write a whole number from 0 to {most}.");
        }

        return number;
    }

    private static int ReadVerbosity(ArgumentResult result)
    {
        string text = result.Tokens[^1].Value;
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
