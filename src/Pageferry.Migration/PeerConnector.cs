using System.Net;
using System.Net.Sockets;

namespace Pageferry.Migration;

/// <summary>Opens a source's connections, all to the same address.</summary>
internal sealed class PeerConnector
{
    private readonly EndPoint _destination;
    private readonly MigrationSecurity? _security;
    private readonly bool _insecureNetwork;
    private readonly TimeSpan _connectPatience;
    private readonly TimeSpan _patience;
    private IPEndPoint? _found;

    /// <summary>Remembers where to connect to, and how.</summary>
    /// <param name="destination">An address, or a host name and port.</param>
    /// <param name="security">Who this side is and whom it trusts; null for connections without TLS.</param>
    /// <param name="insecureNetwork">Whether to connect beyond loopback without TLS.</param>
    /// <param name="connectPatience">How long a connection may take to be made.</param>
    /// <param name="patience">How long the destination may take for each step of the handshake then.</param>
    internal PeerConnector(EndPoint destination, MigrationSecurity? security, bool insecureNetwork, TimeSpan connectPatience, TimeSpan patience)
    {
        _connectPatience = connectPatience;
        _patience = patience;
        _destination = destination;
        _security = security;
        _insecureNetwork = insecureNetwork;
    }

    /// <summary>A destination as a person writes it.</summary>
    internal static string NameOf(EndPoint destination) => destination is DnsEndPoint host ? $"{host.Host}:{host.Port}" : $"{destination}";

    /// <summary>Connects, under TLS if that is asked for.</summary>
    /// <param name="connections">Where to add the connection.</param>
    /// <returns>The connection.</returns>
    /// <exception cref="SocketException">Nobody answers there.</exception>
    /// <exception cref="ProtocolException">The destination is beyond loopback and there is no TLS, or TLS failed.</exception>
    internal PeerConnection Connect(List<PeerConnection> connections)
    {
        PeerConnection connection = _found is null ? ConnectFirst() : ConnectTo(_found);
        connections.Add(connection);
        if (_security is not null)
        {
            connection.Deadline = _patience;
            connection.SecureAsSource(_security, HostName());
            connection.Patience = _patience;
        }

        return connection;
    }

    private PeerConnection ConnectFirst()
    {
        SocketException? failure = null;
        foreach (IPEndPoint candidate in Resolve())
        {
            try
            {
                PeerConnection connection = ConnectTo(candidate);
                _found = candidate;
                return connection;
            }
            catch (SocketException e)
            {
                failure = e;
            }
        }

        throw failure ?? new SocketException((int)SocketError.HostNotFound);
    }

    private IEnumerable<IPEndPoint> Resolve()
    {
        if (_destination is not DnsEndPoint host)
        {
            var address = (IPEndPoint)_destination;
            return MayConnect(address.Address) ? [address] : throw Refused(address);
        }

        IPAddress[] found = Dns.GetHostAddresses(host.Host);
        IPAddress[] allowed = Array.FindAll(found, MayConnect);
        return allowed.Length > 0 || found.Length == 0 ? allowed.Select(address => new IPEndPoint(address, host.Port)) : throw Refused(host);
    }

    private bool MayConnect(IPAddress address) => _security is not null || _insecureNetwork || IPAddress.IsLoopback(address);

    private static ProtocolException Refused(EndPoint destination) =>
        new($"{NameOf(destination)} is beyond loopback, and there the guest's memory travels under TLS only. Give a certificate, a key and an authority.");

    private PeerConnection ConnectTo(IPEndPoint destination)
    {
        var connection = new PeerConnection(new Socket(destination.AddressFamily, SocketType.Stream, ProtocolType.Tcp)) { Patience = _patience };
        try
        {
            using var deadline = new CancellationTokenSource(_connectPatience);
            connection.Socket.ConnectAsync(destination, deadline.Token).AsTask().GetAwaiter().GetResult();
            return connection;
        }
        catch (OperationCanceledException)
        {
            connection.Dispose();
            throw new SocketException((int)SocketError.TimedOut);
        }
        catch
        {
            connection.Dispose();
            throw;
        }
    }

    /// <summary>What the destination's certificate is to be for: the name that was asked for, or the address, without its interface.</summary>
    private string HostName() => _destination is DnsEndPoint host ? host.Host : new IPAddress(((IPEndPoint)_destination).Address.GetAddressBytes()).ToString();
}
