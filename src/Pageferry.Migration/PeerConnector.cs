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
    private readonly CancellationToken _cancelled;
    private IPEndPoint? _found;

    /// <summary>Remembers where to connect to, and how.</summary>
    /// <param name="destination">An address, or a host name and port.</param>
    /// <param name="security">Who this side is and whom it trusts; null for connections without TLS.</param>
    /// <param name="insecureNetwork">Whether to connect beyond loopback without TLS.</param>
    /// <param name="connectPatience">How long a connection may take to be made.</param>
    /// <param name="patience">How long the destination may take for each step of the handshake then.</param>
    /// <param name="cancelled">Ends whatever is waited for, also in what was connected.</param>
    internal PeerConnector(EndPoint destination, MigrationSecurity? security, bool insecureNetwork, TimeSpan connectPatience, TimeSpan patience, CancellationToken cancelled)
    {
        _cancelled = cancelled;
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
    /// <exception cref="TimeoutException">It did not answer in time.</exception>
    internal PeerConnection Connect(List<PeerConnection> connections)
    {
        PeerConnection connection = _found is null ? ConnectFirst() : ConnectTo(_found);
        connections.Add(connection);

        // The peer can still be told why.
        _ = _cancelled.Register(connection.StopReceiving);
        if (_security is not null)
        {
            Secure(connection, _security);
        }

        return connection;
    }

    private void Secure(PeerConnection connection, MigrationSecurity security)
    {
        connection.Deadline = _patience;
        try
        {
            connection.SecureAsSource(security, HostName());
        }
        catch (SocketException failure) when (failure.SocketErrorCode is SocketError.TimedOut or SocketError.WouldBlock)
        {
            throw PeerConnection.Late("its part of the TLS handshake", _patience);
        }

        connection.Patience = _patience;
    }

    private PeerConnection ConnectFirst()
    {
        Exception? failure = null;
        foreach (IPEndPoint candidate in Resolve())
        {
            try
            {
                PeerConnection connection = ConnectTo(candidate);
                _found = candidate;
                return connection;
            }
            catch (Exception e) when (e is SocketException or TimeoutException)
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

        IPAddress[] found = Dns.GetHostAddressesAsync(host.Host, _cancelled).WaitAsync(_cancelled).GetAwaiter().GetResult();
        IPAddress[] allowed = Array.FindAll(found, MayConnect);
        return allowed.Length > 0 || found.Length == 0 ? allowed.Select(address => new IPEndPoint(address, host.Port)) : throw Refused(host);
    }

    private bool MayConnect(IPAddress address) => _security is not null || _insecureNetwork || IPAddress.IsLoopback(address);

    private static ProtocolException Refused(EndPoint destination) =>
        new($"{NameOf(destination)} is beyond loopback, and there the guest's memory travels under TLS only. Give a certificate, a key and an authority.");

    /// <remarks>
    /// Not by <see cref="Socket.ConnectAsync(EndPoint)"/>: after it a socket never blocks again, and who waits in it is woken by another thread, which waits for all
    /// sockets. Each page that a guest waits for took two more switches of threads so.
    /// </remarks>
    private PeerConnection ConnectTo(IPEndPoint destination)
    {
        var connection = new PeerConnection(new Socket(destination.AddressFamily, SocketType.Stream, ProtocolType.Tcp));
        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(_cancelled);
        deadline.CancelAfter(_connectPatience);
        try
        {
            using (deadline.Token.Register(connection.Dispose))
            {
                connection.Socket.Connect(destination);
            }

            deadline.Token.ThrowIfCancellationRequested();
            connection.Patience = _patience;
            return connection;
        }
        catch (Exception failure)
        {
            connection.Dispose();
            _cancelled.ThrowIfCancellationRequested();
            throw deadline.IsCancellationRequested ? PeerConnection.Late("a connection", _connectPatience) : failure;
        }
    }

    /// <summary>What the destination's certificate is to be for: the name that was asked for, or the address, without its interface.</summary>
    private string HostName() => _destination is DnsEndPoint host ? host.Host : new IPAddress(((IPEndPoint)_destination).Address.GetAddressBytes()).ToString();
}
