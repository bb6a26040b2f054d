using System.CommandLine;
using System.CommandLine.Parsing;

namespace Pageferry.Cli;

/// <summary>The options that say who this side is and whom it trusts, and the rule that nothing leaves loopback without them.</summary>
internal sealed class SecurityOptions
{
    private readonly Option<NetworkEndpoint> _endpoint;
    private readonly Option<string?> _certificate = File("--tls-cert", "This side's certificate, PEM. 'pageferry tls init' makes all three files.");
    private readonly Option<string?> _key = File("--tls-key", "Its private key, PEM, not encrypted.");
    private readonly Option<string?> _authority = File("--tls-ca", "The authority that has to have signed the peer's certificate, PEM.");
    private readonly Option<string?> _hostname;
    private readonly Option<bool> _insecureNetwork;
    private readonly string _warning;

    /// <summary>Adds the options to a command.</summary>
    /// <param name="command">The command.</param>
    /// <param name="endpoint">Its option that says where it listens or connects.</param>
    /// <param name="hostname">The line of help for the peer's name.</param>
    /// <param name="givenUp">What is given up without TLS, to end a sentence.</param>
    /// <param name="without">An option with which none of this is read, since a process has it already; null for none.</param>
    internal SecurityOptions(Command command, Option<NetworkEndpoint> endpoint, string hostname, string givenUp, Option<bool>? without = null)
    {
        _endpoint = endpoint;
        _hostname = new Option<string?>("--tls-hostname") { Description = hostname, HelpName = "NAME" };
        _insecureNetwork = new Option<bool>("--insecure-network") { Description = $"Leave loopback without TLS: {givenUp}." };
        _warning = $"warning: without TLS {givenUp}.";
        foreach (Option option in (Option[])[_certificate, _key, _authority, _hostname, _insecureNetwork])
        {
            command.Add(option);
        }

        command.Validators.Add(result =>
        {
            if (without is null || !result.GetValue(without))
            {
                Check(result);
            }
        });
    }

    /// <summary>What the user asked for, with absolute paths: another process may be the one that reads the files. Says on standard error what is given up.</summary>
    /// <param name="result">The command line.</param>
    internal SecuritySettings Read(ParseResult result)
    {
        var settings = new SecuritySettings
        {
            TlsCert = Absolute(result.GetValue(_certificate)),
            TlsKey = Absolute(result.GetValue(_key)),
            TlsCa = Absolute(result.GetValue(_authority)),
            TlsHostname = result.GetValue(_hostname),
            InsecureNetwork = result.GetValue(_insecureNetwork),
        };
        if (settings.InsecureNetwork)
        {
            Console.Error.WriteLine($"pageferry: {_warning}");
        }

        return settings;
    }

    private static string? Absolute(string? path) => path is null ? null : Path.GetFullPath(path);

    private static Option<string?> File(string name, string description) => new(name) { Description = description, HelpName = "FILE" };

    // The words as they were written: what can't be read as what it is to be is complained about elsewhere, and has no value here.
    private static string? Text(CommandResult result, Option option) => result.GetResult(option) is { Tokens: [var token] } ? token.Value : null;

    private void Check(CommandResult result)
    {
        Option[] files = [_certificate, _key, _authority];
        string[] missing = [.. files.Where(option => string.IsNullOrEmpty(Text(result, option))).Select(option => option.Name)];
        bool isSecured = missing.Length == 0;
        bool isInsecure = result.GetValue(_insecureNetwork);
        if (!isSecured && files.Any(option => Text(result, option) is not null))
        {
            result.AddError($"TLS needs --tls-cert, --tls-key and --tls-ca; {string.Join(" and ", missing)} {(missing.Length == 1 ? "is" : "are")} missing. 'pageferry tls init' makes the files.");
        }
        else if (isSecured && isInsecure)
        {
            result.AddError("--insecure-network is for connections without TLS. Leave it out, or --tls-cert, --tls-key and --tls-ca.");
        }
        else if (!isSecured && Text(result, _hostname) is not null)
        {
            result.AddError("--tls-hostname is the name in the peer's certificate: it needs --tls-cert, --tls-key and --tls-ca.");
        }
        else if (!isSecured && !isInsecure && NetworkEndpoint.TryParse(Text(result, _endpoint) ?? string.Empty, anyPort: true, out NetworkEndpoint? endpoint, out _))
        {
            CheckLoopback(result, endpoint!);
        }
    }

    private static void CheckLoopback(CommandResult result, NetworkEndpoint endpoint)
    {
        try
        {
            if (!endpoint.IsLoopback())
            {
                result.AddError(
                    $"{endpoint} is beyond loopback, and there a guest's memory travels under TLS only. Give --tls-cert, --tls-key and --tls-ca; 'pageferry tls init' makes the files. "
                    + "Where nobody else reaches the network, --insecure-network does without.");
            }
        }
        catch (CommandException unknown)
        {
            result.AddError(unknown.Message);
        }
    }
}
