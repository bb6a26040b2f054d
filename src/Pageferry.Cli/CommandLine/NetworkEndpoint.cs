using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace Pageferry.Cli;

/// <summary>Where to listen or connect, as <c>HOST:PORT</c> names it.</summary>
internal sealed class NetworkEndpoint
{
    private readonly string _text;

    private NetworkEndpoint(string text, EndPoint endPoint)
    {
        _text = text;
        EndPoint = endPoint;
    }

    /// <summary>An <see cref="IPEndPoint"/>, or a <see cref="DnsEndPoint"/> whose name is looked up when it is needed.</summary>
    internal EndPoint EndPoint { get; }

    /// <summary>Reads an address.</summary>
    /// <param name="text"><c>HOST:PORT</c>; an IPv6 address stands in brackets.</param>
    /// <param name="anyPort">Whether port 0, "the kernel picks one", makes sense.</param>
    /// <param name="endpoint">The address; null if there is none.</param>
    /// <param name="error">Why it can't be used and what to do; empty on success.</param>
    /// <returns>Whether the address can be used.</returns>
    internal static bool TryParse(string text, bool anyPort, out NetworkEndpoint? endpoint, out string error)
    {
        endpoint = null;
        int colon = text.LastIndexOf(':');
        if (colon <= 0
            || !ushort.TryParse(text.AsSpan(colon + 1), NumberStyles.None, CultureInfo.InvariantCulture, out ushort port)
            || !TryParseHost(text[..colon], port, out EndPoint? found))
        {
            error = $"'{text}' is not HOST:PORT. Write a host's name or address and a port from {(anyPort ? 0 : 1)} to 65535, such as b.example:4444, 127.0.0.1:4444 or [::1]:4444.";
            return false;
        }

        if (port == 0 && !anyPort)
        {
            error = $"'{text}' has port 0, where nobody listens. Give the port that 'pageferry vm receive' printed.";
            return false;
        }

        endpoint = new NetworkEndpoint(text, found!);
        error = string.Empty;
        return true;
    }

    /// <summary>What the user wrote.</summary>
    public override string ToString() => _text;

    /// <summary>Whether it is on this host and nowhere else. A name is looked up, and is if one of its addresses is.</summary>
    /// <exception cref="CommandException">There is no such host.</exception>
    internal bool IsLoopback() => Addresses().Any(IPAddress.IsLoopback);

    /// <summary>An address of this host to listen on.</summary>
    /// <param name="onlyLoopback">Whether of a name's addresses only those on loopback will do.</param>
    /// <returns>The address; of several the first.</returns>
    /// <exception cref="CommandException">There is none.</exception>
    internal IPEndPoint ToLocal(bool onlyLoopback)
    {
        IPAddress address = Array.Find(Addresses(), address => !onlyLoopback || IPAddress.IsLoopback(address))
            ?? throw new CommandException($"{_text} is not on loopback.");
        return new IPEndPoint(address, EndPoint is DnsEndPoint name ? name.Port : ((IPEndPoint)EndPoint).Port);
    }

    private static bool TryParseHost(string host, int port, out EndPoint? endPoint)
    {
        bool isBracketed = host is ['[', .., ']'];
        if (IPAddress.TryParse(isBracketed ? host[1..^1] : host, out IPAddress? address))
        {
            endPoint = new IPEndPoint(address, port);
            return isBracketed == (address.AddressFamily == AddressFamily.InterNetworkV6);
        }

        bool isName = Uri.CheckHostName(host) == UriHostNameType.Dns;
        endPoint = isName ? new DnsEndPoint(host, port) : null;
        return isName;
    }

    private IPAddress[] Addresses()
    {
        if (EndPoint is not DnsEndPoint name)
        {
            return [((IPEndPoint)EndPoint).Address];
        }

        try
        {
            return Dns.GetHostAddresses(name.Host);
        }
        catch (SocketException e)
        {
            throw new CommandException($"Could not find a host named '{name.Host}': {e.Message}. Check the name, or write an address, such as 127.0.0.1:4444.");
        }
    }
}
