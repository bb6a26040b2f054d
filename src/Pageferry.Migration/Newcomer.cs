using System.Net;
using System.Net.Sockets;

namespace Pageferry.Migration;

/// <summary>A connection of which it is not known yet whose it is.</summary>
internal sealed class Newcomer
{
    /// <summary>Whoever has one address of IPv6 has all that share these.</summary>
    private const int NetworkBytes = 8;

    internal Newcomer(PeerConnection connection)
    {
        Connection = connection;
        Network = NetworkOf(connection.Socket);
    }

    internal PeerConnection Connection { get; }

    /// <summary>Where it comes from; null if it is gone already.</summary>
    internal IPAddress? Network { get; }

    /// <summary>Whether something of what it sent was read.</summary>
    internal volatile bool HasSpoken;

    /// <summary>Whether it had to make room for another.</summary>
    internal volatile bool IsDisplaced;

    /// <summary>Whether it has sent nothing.</summary>
    internal bool IsSilent
    {
        get
        {
            try
            {
                return !HasSpoken && Connection.Socket.Available == 0;
            }
            catch (Exception failure) when (failure is SocketException or ObjectDisposedException)
            {
                return true;
            }
        }
    }

    /// <summary>Has it make room for another; it can still be told why.</summary>
    internal void Displace()
    {
        IsDisplaced = true;
        Connection.StopReceiving();
    }

    private static IPAddress? NetworkOf(Socket socket)
    {
        try
        {
            IPAddress address = ((IPEndPoint)socket.RemoteEndPoint!).Address;
            byte[] bytes = address.GetAddressBytes();
            if (address.AddressFamily != AddressFamily.InterNetworkV6 || address.IsIPv4MappedToIPv6)
            {
                return address;
            }

            bytes.AsSpan(NetworkBytes).Clear();
            return new IPAddress(bytes);
        }
        catch (Exception failure) when (failure is SocketException or ObjectDisposedException)
        {
            return null;
        }
    }
}
