using System.Net;

namespace Pageferry.Migration.Tests;

/// <summary>A destination that lets a source in as the product does, and then says what a test has it say.</summary>
internal sealed class ScriptedDestination : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    private readonly ConnectionListener _listener =
        new(new IPEndPoint(IPAddress.Loopback, 0), VersionRange.Current, security: null, logger: null, s_patience);

    private IncomingConnections? _connections;

    internal IPEndPoint EndPoint => _listener.EndPoint;

    internal PeerConnection Control => _connections!.Control;

    internal PeerConnection Demand => _connections!.Demand;

    internal IReadOnlyList<PeerConnection> Background => _connections!.Background;

    /// <summary>Lets a source in, up to the answer to its layout.</summary>
    /// <param name="isArmed">Whether to give it.</param>
    internal void Accept(bool isArmed = true)
    {
        _connections = _listener.AcceptControl();
        _connections.AcceptRest(s_patience);
        foreach (PeerConnection connection in _connections.All)
        {
            connection.Patience = s_patience;
        }

        _ = Control.Receive(MessageType.Layout, MigrationLayout.MostBytes);
        if (isArmed)
        {
            Control.Send(MessageType.Armed, []);
        }
    }

    /// <summary>Takes the guest over from a source that sends no memory before it.</summary>
    internal void TakeOver()
    {
        _ = Control.Receive(MessageType.Switchover, SwitchoverMessage.MostBytes);
        Control.Send(MessageType.StateLoaded, []);
        _ = Control.Receive(MessageType.Start, 0);
        Control.Send(MessageType.Running, []);
    }

    /// <summary>Loses the link, and lets the source come back to the session without telling it what was found.</summary>
    internal void LoseAndAcceptAgain()
    {
        SessionId held = _connections!.Id;
        _connections.Dispose();
        _connections = _listener.AcceptControl(held, takesOthers: false, s_patience)!;
        _connections.AcceptRest(s_patience);
    }

    public void Dispose()
    {
        _connections?.Dispose();
        _listener.Dispose();
    }
}
