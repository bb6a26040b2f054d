using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace Pageferry.Cli;

/// <summary>Reads <c>HOST:PORT</c> and holds it to loopback: nothing here is authenticated or encrypted yet.</summary>
internal static class LoopbackEndpoint
{
    /// <summary>Reads an address.</summary>
    /// <param name="text"><c>HOST:PORT</c>; an IPv6 address stands in brackets.</param>
    /// <param name="anyPort">Whether port 0, "the kernel picks one", makes sense.</param>
    /// <param name="endpoint">The address.</param>
    /// <param name="error">Why it can't be used and what to do; empty on success.</param>
    /// <returns>Whether the address can be used.</returns>
    internal static bool TryParse(string text, bool anyPort, out IPEndPoint endpoint, out string error)
    {
        endpoint = new IPEndPoint(IPAddress.Loopback, 0);
        int colon = text.LastIndexOf(':');
        if (colon <= 0 || !ushort.TryParse(text.AsSpan(colon + 1), NumberStyles.None, CultureInfo.InvariantCulture, out ushort port))
        {
            error = $"'{text}' is not HOST:PORT. Write an address and a port from 0 to 65535, such as 127.0.0.1:4444 or [::1]:4444.";
            return false;
        }

        if (port == 0 && !anyPort)
        {
            error = $"'{text}' has port 0, where nobody listens. Give the port that 'pageferry vm receive' printed.";
            return false;
        }

        string host = text[..colon];
        if (!TryResolve(host, out IPAddress? address))
        {
            error = $"Could not find a host named '{host}'. Write an address and a port, such as 127.0.0.1:4444.";
            return false;
        }

        if (!IPAddress.IsLoopback(address))
        {
            error = $"{text} is beyond loopback, and this version has neither authentication nor encryption, so it refuses to listen on or connect to it. "
                + "Use 127.0.0.1 on both machines and carry the port through SSH: ssh -N -L 4444:127.0.0.1:4444 OTHER-HOST.";
            return false;
        }

        endpoint = new IPEndPoint(address, port);
        error = string.Empty;
        return true;
    }

    private static bool TryResolve(string host, out IPAddress address)
    {
        bool bracketed = host is ['[', .., ']'];
        if (IPAddress.TryParse(bracketed ? host[1..^1] : host, out IPAddress? literal))
        {
            address = literal;
            return bracketed == (literal.AddressFamily == AddressFamily.InterNetworkV6);
        }

        address = IPAddress.None;
        if (bracketed)
        {
            return false;
        }

        try
        {
            IPAddress[] found = Dns.GetHostAddresses(host);
            address = Array.Find(found, IPAddress.IsLoopback) ?? found.FirstOrDefault() ?? IPAddress.None;
            return found.Length > 0;
        }
        catch (Exception e) when (e is SocketException or ArgumentException)
        {
            return false;
        }
    }
}
