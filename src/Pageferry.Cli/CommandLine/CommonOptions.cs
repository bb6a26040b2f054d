using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;
using System.Text;

namespace Pageferry.Cli;

/// <summary>Options that more than one command has, so that they mean the same everywhere.</summary>
internal static class CommonOptions
{
    /// <summary>What a UNIX socket's path may have in bytes: <c>sun_path</c> of unix(7), less its closing zero.</summary>
    internal const int LongestSocketPath = 107;

    internal static Option<bool> Json() => new("--json") { Description = "Write JSON to standard output." };

    internal static Option<MemorySize> Memory() => Size("--memory", "Guest memory: a number and K, M, G or T; without a unit, MiB.", 512UL << 20);

    /// <summary>An amount of memory.</summary>
    /// <param name="name">The option's name.</param>
    /// <param name="description">Its line of help.</param>
    /// <param name="bytes">What it is without the option.</param>
    internal static Option<MemorySize> Size(string name, string description, ulong bytes) => new(name)
    {
        Description = description,
        HelpName = "SIZE",
        DefaultValueFactory = _ => new MemorySize(bytes),
        CustomParser = result =>
        {
            if (!MemorySize.TryParse(Text(result), out MemorySize size, out string error))
            {
                result.AddError(error);
            }

            return size;
        },
    };

    internal static Option<int> Vcpus() => new("--vcpus")
    {
        Description = "Number of virtual CPUs.",
        HelpName = "N",
        DefaultValueFactory = _ => 1,
        CustomParser = result =>
        {
            if (!int.TryParse(Text(result), NumberStyles.None, CultureInfo.InvariantCulture, out int count) || count == 0)
            {
                result.AddError($"'{Text(result)}' is not a number of virtual CPUs. Write a whole number from 1 up.");
            }

            return count;
        },
    };

    /// <summary>A whole number.</summary>
    /// <param name="name">The option's name.</param>
    /// <param name="description">Its line of help.</param>
    /// <param name="least">The least that makes sense.</param>
    /// <param name="most">The most that makes sense.</param>
    /// <param name="otherwise">What it is without the option.</param>
    internal static Option<int> Number(string name, string description, int least, int most, int otherwise) => new(name)
    {
        Description = description,
        HelpName = "N",
        DefaultValueFactory = _ => otherwise,
        CustomParser = result =>
        {
            if (!int.TryParse(Text(result), NumberStyles.None, CultureInfo.InvariantCulture, out int number) || number < least || number > most)
            {
                result.AddError($"'{Text(result)}' is not a value of {name}. Write a whole number from {least} to {most}.");
            }

            return number;
        },
    };

    internal static Option<string> Backing() => new("--backing")
    {
        Description = "What holds the guest's memory: memfd, memfd-2m (reserved 2 MiB pages), anonymous, or guest-memfd (KVM's).",
        HelpName = "KIND",
        DefaultValueFactory = _ => BackingWord.Memfd,
        CustomParser = result => Choice(result, BackingWord.All),
    };

    internal static Option<string> Delivery() => new("--delivery")
    {
        Description = "How userfaults arrive: queue (userfaultfd's), exit (the vCPU's own thread), or auto (what doctor finds best).",
        HelpName = "KIND",
        DefaultValueFactory = _ => DeliveryWord.Auto,
        CustomParser = result => Choice(result, DeliveryWord.Auto, DeliveryWord.Queue, DeliveryWord.Exit),
    };

    /// <summary>When memory goes.</summary>
    /// <param name="otherwise">The word without the option.</param>
    internal static Option<string> Mode(string otherwise) => new("--mode")
    {
        Description = "When memory goes: before the guest in rounds (precopy), after it (postcopy), or before it as long as that converges (auto).",
        HelpName = "auto|precopy|postcopy",
        DefaultValueFactory = _ => otherwise,
        CustomParser = result => Choice(result, "auto", "precopy", "postcopy"),
    };

    internal static Option<string> DirtyTracking() => new("--dirty-tracking")
    {
        Description = "How the guest's writes are tracked for pre-copy: by KVM's dirty log, its dirty ring, or auto.",
        HelpName = "log|ring|auto",
        DefaultValueFactory = _ => DirtyTrackingWord.Auto,
        CustomParser = result => Choice(result, DirtyTrackingWord.Auto, DirtyTrackingWord.Log, DirtyTrackingWord.Ring),
    };

    /// <summary>Ranges of a guest's memory; none for all of it.</summary>
    internal static Option<GuestRange[]> Ranges() => new("--range")
    {
        Description = "Guest physical addresses in whole pages, such as 0x200000+0x1000 or 1G+64M; may be given more than once. Default: all memory.",
        HelpName = "GPA+LENGTH",
        Arity = ArgumentArity.OneOrMore,
        CustomParser = result => [.. result.Tokens.Select(token =>
        {
            if (!GuestRange.TryParse(token.Value, out GuestRange range, out string error))
            {
                result.AddError(error);
            }

            return range;
        })],
    };

    /// <summary>Ranges as a request to the guest's process has them.</summary>
    /// <param name="ranges">What the user gave; null for all memory.</param>
    internal static IReadOnlyList<string>? TextOf(GuestRange[]? ranges) => ranges is null ? null : [.. ranges.Select(range => range.ToString())];

    internal static Option<string> Privilege() => new("--privilege")
    {
        Description = "What the guest runs as: user (CPL 3) or kernel (CPL 0).",
        HelpName = "LEVEL",
        DefaultValueFactory = _ => GuestPrivilegeWord.User,
        CustomParser = result => Choice(result, GuestPrivilegeWord.User, GuestPrivilegeWord.Kernel),
    };

    internal static Option<string> Host() => new("--host")
    {
        Description = "What runs the guest: kvm, threads, or auto (kvm if it can).",
        HelpName = "KIND",
        DefaultValueFactory = _ => HostWord.Auto,
        CustomParser = result => Choice(result, HostWord.Auto, HostWord.Kvm, HostWord.Threads),
    };

    /// <summary>A file for a report.</summary>
    internal static Option<string?> Report() => new("--report")
    {
        Description = "Write what happened to a page with plots, which needs no network: a file that ends with .html.",
        HelpName = "FILE",
        CustomParser = result =>
        {
            string path = Text(result);
            if (path.EndsWith(ReportFile.Extension, StringComparison.Ordinal))
            {
                return Path.GetFullPath(path);
            }

            result.AddError($"'{path}' is not a value of --report. Write a file's name that ends with {ReportFile.Extension}, such as report.html.");
            return null;
        },
    };

    internal static Option<string> Control(string description) => SocketPath("--control", description);

    /// <summary>The path of a UNIX socket.</summary>
    /// <param name="name">The option's name.</param>
    /// <param name="description">Its line of help.</param>
    internal static Option<string> SocketPath(string name, string description) => new(name)
    {
        Description = description,
        HelpName = "SOCKET",
        Required = true,
        CustomParser = result =>
        {
            string path = Text(result);
            int bytes = Encoding.UTF8.GetByteCount(path);
            if (bytes is 0 or > LongestSocketPath)
            {
                result.AddError($"'{path}' of {name} has {bytes} bytes; a UNIX socket's path has 1 to {LongestSocketPath}. Use a shorter path, such as /tmp/guest.sock.");
            }

            return path;
        },
    };

    /// <summary>A holder's socket, by its whole path: another process connects to it.</summary>
    /// <param name="description">Its line of help.</param>
    internal static Option<string?> Holder(string description)
    {
        Option<string> path = SocketPath("--holder", description);
        return new Option<string?>(path.Name)
        {
            Description = path.Description,
            HelpName = path.HelpName,
            CustomParser = result => path.CustomParser!(result) is { Length: > 0 } text ? Path.GetFullPath(text) : null,
        };
    }

    /// <summary>A file to write, by its whole path: another process may be the one that writes it.</summary>
    internal static Option<string> OutputFile(string description) => new("--output", "-o")
    {
        Description = description,
        HelpName = "FILE",
        Required = true,
        CustomParser = result => Text(result).Length > 0 ? Path.GetFullPath(Text(result)) : string.Empty,
    };

    /// <summary>Agreement to a price, given beforehand.</summary>
    internal static Option<bool> Yes() => new("--yes") { Description = "Agree to the price beforehand, instead of at the terminal." };

    /// <summary>Where to listen or connect.</summary>
    /// <param name="name">The option's name.</param>
    /// <param name="description">Its line of help.</param>
    /// <param name="anyPort">Whether port 0 makes sense.</param>
    internal static Option<NetworkEndpoint> Endpoint(string name, string description, bool anyPort) => new(name)
    {
        Description = description,
        HelpName = "HOST:PORT",
        Required = true,
        CustomParser = result =>
        {
            if (!NetworkEndpoint.TryParse(Text(result), anyPort, out NetworkEndpoint? endpoint, out string error))
            {
                result.AddError(error);
            }

            return endpoint;
        },
    };

    /// <summary>A time.</summary>
    /// <param name="name">The option's name.</param>
    /// <param name="description">Its line of help.</param>
    /// <param name="unit">The unit of a number without one.</param>
    /// <param name="range">The least and the most that make sense, as a user writes them; null for any time above zero.</param>
    internal static Option<TimeSpan?> Time(string name, string description, string unit, (string Least, string Most)? range = null) => new(name)
    {
        Description = description,
        HelpName = "TIME",
        CustomParser = result =>
        {
            if (!Quantity.TryParseTime(Text(result), unit, out TimeSpan time))
            {
                result.AddError($"'{Text(result)}' is not a value of {name}. Write a number above zero and a unit, such as 300ms, 1.5s or 10m; without a unit, {unit}.");
            }
            else if (range is { } bounds && (time < TimeOf(bounds.Least) || time > TimeOf(bounds.Most)))
            {
                result.AddError($"'{Text(result)}' is not a value of {name}, which is from {bounds.Least} to {bounds.Most}.");
            }

            return time;
        },
    };

    /// <summary>A rate in bytes per second.</summary>
    /// <param name="name">The option's name.</param>
    /// <param name="description">Its line of help.</param>
    internal static Option<long> Rate(string name, string description) => new(name)
    {
        Description = description,
        HelpName = "RATE",
        CustomParser = result =>
        {
            if (!Quantity.TryParseRate(Text(result), out long rate))
            {
                result.AddError($"'{Text(result)}' is not a value of {name}. Write a number above zero and a unit, such as 100M or 1.5G, per second; without a unit, M.");
            }

            return rate;
        },
    };

    /// <summary>How long a lost link is looked for.</summary>
    /// <param name="whom">Who is looked for.</param>
    internal static Option<TimeSpan?> ReconnectFor(string whom) =>
        Time("--reconnect-for", $"How long to look for {whom} when the link is lost after the switchover. Default: as long as it takes.", "s");

    internal static Option<TimeSpan?> LinkTimeout() =>
        Time("--link-timeout", "How long a connection may be silent after the switchover until its link counts as lost: from 100ms to 1h. Default: 5s.", "s", ("100ms", "1h"));

    /// <summary>Ties a child process to its parent: the demo's processes end when the demo does, however it ends.</summary>
    internal static Option<bool> EndWithInput() => new("--end-with-input") { Description = "End when standard input closes, and not before.", Hidden = true };

    /// <summary>Refuses what is given beside an option that makes it mean nothing.</summary>
    /// <param name="result">The command line.</param>
    /// <param name="option">The option.</param>
    /// <param name="reason">Why it would mean nothing.</param>
    /// <param name="allowed">What means something beside it.</param>
    internal static void RefuseOthers(CommandResult result, Option option, string reason, params Option[] allowed)
    {
        string[] others = [.. result.Command.Options.Except(allowed).Where(other => other != option && result.GetResult(other) is { Implicit: false }).Select(other => other.Name)];
        if (others.Length > 0)
        {
            result.AddError($"With {option.Name} {reason}: leave out {string.Join(", ", others)}.");
        }
    }

    /// <summary>Reads one of several words.</summary>
    /// <param name="result">What the user wrote.</param>
    /// <param name="words">The words; the first one stands in where the user wrote another.</param>
    internal static string Choice(ArgumentResult result, params string[] words)
    {
        string text = Text(result);
        if (words.Contains(text, StringComparer.Ordinal))
        {
            return text;
        }

        result.AddError($"'{text}' is not a value of {(result.Parent as OptionResult)?.Option.Name}. Choose one of: {string.Join(", ", words)}.");
        return words[0];
    }

    private static TimeSpan TimeOf(string text) => Quantity.TryParseTime(text, string.Empty, out TimeSpan time) ? time : throw new ArgumentException($"'{text}' is no time.");

    private static string Text(ArgumentResult result) => result.Tokens.Count > 0 ? result.Tokens[0].Value : string.Empty;
}
