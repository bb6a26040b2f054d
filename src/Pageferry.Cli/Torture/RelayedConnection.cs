using System.Net.Sockets;

namespace Pageferry.Cli;

/// <summary>One connection through the relay.</summary>
/// <param name="Source">The side that connected.</param>
/// <param name="Destination">The side that it was connected to.</param>
internal sealed record RelayedConnection(Socket Source, Socket Destination) : IDisposable
{
    /// <summary>Where bytes of a way come from.</summary>
    internal Socket From(RelayWays way) => way == RelayWays.ToDestination ? Source : Destination;

    /// <summary>Where bytes of a way go.</summary>
    internal Socket To(RelayWays way) => way == RelayWays.ToDestination ? Destination : Source;

    /// <summary>Cuts it.</summary>
    public void Dispose()
    {
        Source.Dispose();
        Destination.Dispose();
    }
}
