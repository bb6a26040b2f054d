using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;
using System.Text;
using System.Text.Json;

namespace Pageferry.Cli;

/// <summary><c>pageferry tls init</c>: certificates for migrations between hosts, for people who have none.</summary>
internal static class TlsInitCommand
{
    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        var directory = new Argument<string>("DIR") { Description = "Where to write; made if it isn't there.", DefaultValueFactory = _ => "pageferry-tls" };
        var hosts = new Option<HostNames[]>("--host")
        {
            Description = "A host that gets a certificate, by the name or address that migrations use; more of them after commas. Once for each host.",
            HelpName = "NAME|IP[,...]",
            Required = true,
            CustomParser = ReadHosts,
        };
        Option<bool> json = CommonOptions.Json();
        var command = new Command("init", "Make an authority (CA) and host certificates, or more with the authority that is there. Nothing is overwritten.") { directory, hosts, json };
        examples[command] =
        [
            "pageferry tls init --host a.example --host b.example,10.0.0.2",
            "pageferry tls init /etc/pageferry --host c.example",
        ];
        command.SetAction(result =>
        {
            TlsInitReport report = TlsFiles.Make(result.GetRequiredValue(directory), result.GetRequiredValue(hosts));
            Console.Out.WriteLine(result.GetValue(json) ? JsonSerializer.Serialize(report, CliJson.Indented.TlsInitReport) : Text(report));
            return ExitCode.Done;
        });
        return command;
    }

    private static HostNames[] ReadHosts(ArgumentResult result)
    {
        var hosts = new List<HostNames>();
        foreach (Token token in result.Tokens)
        {
            if (HostNames.TryParse(token.Value, out HostNames? names))
            {
                hosts.Add(names!);
            }
            else
            {
                result.AddError($"'{token.Value}' is not a value of --host. Write host names or addresses, separated by commas: b.example,10.0.0.2.");
            }
        }

        return [.. hosts];
    }

    private static string Text(TlsInitReport report)
    {
        HostFiles source = report.Hosts[0];
        HostFiles destination = report.Hosts[^1];
        var text = new StringBuilder();
        Line(text, $"{(report.CaIsNew ? "Made an authority" : "The authority")}, good until {report.CaUntil:yyyy-MM-dd}:");
        Line(text, $"  {report.CaCert}");
        Line(text, $"  {report.CaKey}   (keep it here: whoever has it can make certificates)");
        foreach (HostFiles host in report.Hosts)
        {
            Line(text, $"Made a certificate for {string.Join(", ", host.Names)}, good until {host.Until:yyyy-MM-dd}:");
            Line(text, $"  {host.Cert}");
            Line(text, $"  {host.Key}");
        }

        Line(text, $"");
        Line(text, $"Copy to each host the authority's certificate, and its own certificate and key:");
        foreach (HostFiles host in report.Hosts)
        {
            Line(text, $"  scp {report.CaCert} {host.Cert} {host.Key} {InBrackets(host.Names[0])}:");
        }

        Line(text, $"");
        Line(text, $"Then, on {destination.Names[0]}, where a guest is to arrive:");
        Line(text, $"  pageferry vm receive --listen {(IsIpv6(destination.Names[0]) ? "[::]" : "0.0.0.0")}:4444 --control b.sock \\");
        Files(text, report, destination);
        Line(text, $"and on {source.Names[0]}, where it runs:");
        Line(text, $"  pageferry vm migrate --control a.sock --to {InBrackets(destination.Names[0])}:4444 \\");
        Files(text, report, source);
        return text.ToString().TrimEnd();
    }

    private static void Files(StringBuilder text, TlsInitReport report, HostFiles host)
    {
        Line(text, $"    --tls-cert {Path.GetFileName(host.Cert)} \\");
        Line(text, $"    --tls-key {Path.GetFileName(host.Key)} --tls-ca {Path.GetFileName(report.CaCert)}");
    }

    private static bool IsIpv6(string name) => name.Contains(':', StringComparison.Ordinal);

    private static string InBrackets(string name) => IsIpv6(name) ? $"[{name}]" : name;

    private static void Line(StringBuilder text, FormattableString line) => text.AppendLine(line.ToString(CultureInfo.InvariantCulture));
}
