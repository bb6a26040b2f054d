using System.Net;
using System.Security.Cryptography.X509Certificates;

namespace Pageferry.Cli;

/// <summary>The names and addresses by which a host is reached, for its certificate. The first one names its files.</summary>
internal sealed class HostNames
{
    private const char Separator = ',';

    private HostNames(string[] all) => All = all;

    /// <summary>All of them.</summary>
    internal IReadOnlyList<string> All { get; }

    /// <summary>What the host's files begin with. A colon in a file's name makes scp(1) take what is before it for a host, and a dash makes it an option.</summary>
    internal string FileName => All[0].Replace(':', '-').TrimStart('-');

    /// <summary>Reads what the user wrote: names and addresses, separated by commas.</summary>
    /// <param name="text">The text.</param>
    /// <param name="names">The names; null if the text is none.</param>
    /// <returns>Whether each of them is one.</returns>
    internal static bool TryParse(string text, out HostNames? names)
    {
        string[] all = text.Split(Separator);
        bool areNames = Array.TrueForAll(all, name => Uri.CheckHostName(name) is UriHostNameType.Dns or UriHostNameType.IPv4 or UriHostNameType.IPv6 && !name.StartsWith('['));
        names = areNames ? new HostNames(all) : null;
        return areNames;
    }

    /// <inheritdoc/>
    public override string ToString() => string.Join(Separator, All);

    /// <summary>The extension of a certificate that holds them.</summary>
    internal X509Extension ToAlternativeNames()
    {
        var names = new SubjectAlternativeNameBuilder();
        foreach (string name in All)
        {
            if (IPAddress.TryParse(name, out IPAddress? address))
            {
                names.AddIpAddress(address);
            }
            else
            {
                names.AddDnsName(name);
            }
        }

        return names.Build();
    }
}
