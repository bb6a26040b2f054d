using System.Net;
using System.Net.Sockets;

namespace Pageferry.Cli;

/// <summary>Stands between a source and a destination, counts their bytes, and begins each disturbance at its byte.</summary>
internal sealed class TortureRelay : IDisposable
{
    private const int PieceBytes = 64 << 10;

    /// <summary>How long what was let through has to arrive before a cut: a reset takes back what was not read.</summary>
    private static readonly TimeSpan s_arrival = TimeSpan.FromMilliseconds(5);

    private static readonly TimeSpan s_pollInterval = TimeSpan.FromMilliseconds(2);

    private readonly Socket _listener = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
    private readonly TortureEvents _events;
    private readonly Func<Disturbance, Task> _disturbProcesses;
    private readonly Lock _lock = new();
    private readonly List<RelayedConnection> _connections = [];
    private readonly List<Disturbance> _planned;
    private readonly Dictionary<RelayWays, long> _passed = new() { [RelayWays.ToDestination] = 0, [RelayWays.ToSource] = 0 };
    private readonly Dictionary<RelayWays, long> _silentUntil = new() { [RelayWays.ToDestination] = 0, [RelayWays.ToSource] = 0 };
    private readonly Dictionary<RelayWays, (long Until, TimeSpan By)> _slow = new() { [RelayWays.ToDestination] = default, [RelayWays.ToSource] = default };
    private long _refusesUntil;
    private int _begun;

    /// <summary>Listens on loopback.</summary>
    /// <param name="planned">What is to be done.</param>
    /// <param name="events">Hears of what is done.</param>
    /// <param name="disturbProcesses">Does what is done to processes; nothing passes the relay until that has ended.</param>
    internal TortureRelay(IEnumerable<Disturbance> planned, TortureEvents events, Func<Disturbance, Task> disturbProcesses)
    {
        _planned = [.. planned.OrderBy(disturbance => disturbance.At)];
        _events = events;
        _disturbProcesses = disturbProcesses;
        _listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        _listener.Listen();
        _ = AcceptAsync();
    }

    /// <summary>Where the source connects to.</summary>
    internal string Endpoint => _listener.LocalEndPoint!.ToString()!;

    /// <summary>Where the destination listens.</summary>
    internal required IPEndPoint Target { private get; set; }

    /// <summary>How many disturbances have begun.</summary>
    internal int Begun => Volatile.Read(ref _begun);

    /// <summary>Cuts what went to a destination that is no more, and goes to another.</summary>
    internal void Replace(IPEndPoint target)
    {
        Target = target;
        CutAll();
    }

    /// <summary>Ends all disturbances, and the connections.</summary>
    internal void Calm()
    {
        lock (_lock)
        {
            _planned.Clear();
            foreach (RelayWays way in (RelayWays[])[RelayWays.ToDestination, RelayWays.ToSource])
            {
                _silentUntil[way] = 0;
                _slow[way] = default;
            }

            _refusesUntil = 0;
        }

        CutAll();
    }

    /// <summary>Ends it all.</summary>
    public void Dispose()
    {
        _listener.Dispose();
        Calm();
    }

    private static long In(TimeSpan time) => Environment.TickCount64 + (long)time.TotalMilliseconds;

    private async Task AcceptAsync()
    {
        try
        {
            while (true)
            {
                Socket source = await _listener.AcceptAsync();
                _ = RelayAsync(source);
            }
        }
        catch (Exception end) when (end is SocketException or ObjectDisposedException)
        {
            // The run has ended.
        }
    }

    private async Task RelayAsync(Socket source)
    {
        source.NoDelay = true;
        using var connection = new RelayedConnection(source, new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true });
        lock (_lock)
        {
            if (Environment.TickCount64 < _refusesUntil)
            {
                return;
            }

            _connections.Add(connection);
        }

        try
        {
            await connection.Destination.ConnectAsync(Target);
            await Task.WhenAll(PumpAsync(connection, RelayWays.ToDestination), PumpAsync(connection, RelayWays.ToSource));
        }
        catch (Exception end) when (end is SocketException or ObjectDisposedException)
        {
            // A side closed it, or it was cut.
        }

        lock (_lock)
        {
            _ = _connections.Remove(connection);
        }
    }

    private async Task PumpAsync(RelayedConnection connection, RelayWays way)
    {
        Socket to = connection.To(way);
        var piece = new byte[PieceBytes];
        int received;
        while ((received = await connection.From(way).ReceiveAsync(piece)) > 0)
        {
            int sent = 0;
            foreach ((Disturbance disturbance, int at) in Due(way, received))
            {
                await SendAsync(to, piece.AsMemory(sent, at - sent), way);
                sent = at;
                _ = Interlocked.Increment(ref _begun);
                _events.Add($"{disturbance}");
                if (disturbance.Scenario == TortureScenario.Corrupt)
                {
                    piece[at] ^= disturbance.Mask;
                }
                else
                {
                    await BeginAsync(disturbance, connection, to);
                }
            }

            await SendAsync(to, piece.AsMemory(sent, received - sent), way);
        }

        to.Shutdown(SocketShutdown.Send);
    }

    private List<(Disturbance Disturbance, int At)> Due(RelayWays way, int received)
    {
        lock (_lock)
        {
            long from = _passed[way];
            _passed[way] += received;
            List<Disturbance> due = _planned.FindAll(disturbance => disturbance.Way == way && disturbance.At < from + received);
            _ = _planned.RemoveAll(due.Contains);
            return due.ConvertAll(disturbance => (disturbance, (int)Math.Max(0, disturbance.At - from)));
        }
    }

    private async Task SendAsync(Socket to, ReadOnlyMemory<byte> bytes, RelayWays way)
    {
        (long until, TimeSpan by) = Read(_slow, way);
        if (Environment.TickCount64 < until)
        {
            await Task.Delay(by);
        }

        while (Environment.TickCount64 < Read(_silentUntil, way))
        {
            await Task.Delay(s_pollInterval);
        }

        while (!bytes.IsEmpty)
        {
            bytes = bytes[await to.SendAsync(bytes)..];
        }
    }

    private async Task BeginAsync(Disturbance disturbance, RelayedConnection connection, Socket to)
    {
        switch (disturbance.Scenario)
        {
            case TortureScenario.Cut:
                await LetArriveAsync(to);
                CutAll();
                break;
            case TortureScenario.CutOne:
                await LetArriveAsync(to);
                connection.Dispose();
                break;
            case TortureScenario.HalfOpen:
                Set(_silentUntil, disturbance.Affects, In(disturbance.Lasts));
                break;
            case TortureScenario.Delay:
                Set(_slow, disturbance.Affects, (In(disturbance.Lasts), disturbance.PieceDelay));
                break;
            case TortureScenario.Refuse:
                lock (_lock)
                {
                    _refusesUntil = In(disturbance.Lasts);
                }

                CutAll();
                break;
            case TortureScenario.KillDestination or TortureScenario.KillArrived:
                Set(_silentUntil, RelayWays.Both, long.MaxValue);
                await _disturbProcesses(disturbance);
                Set(_silentUntil, RelayWays.Both, 0);
                break;
            default:
                _ = _disturbProcesses(disturbance);
                break;
        }
    }

    private static Task LetArriveAsync(Socket to)
    {
        to.Shutdown(SocketShutdown.Send);
        return Task.Delay(s_arrival);
    }

    private T Read<T>(Dictionary<RelayWays, T> ways, RelayWays way)
    {
        lock (_lock)
        {
            return ways[way];
        }
    }

    private void Set<T>(Dictionary<RelayWays, T> ways, RelayWays affected, T value)
    {
        lock (_lock)
        {
            foreach (RelayWays way in ways.Keys.Where(way => affected.HasFlag(way)).ToArray())
            {
                ways[way] = value;
            }
        }
    }

    private void CutAll()
    {
        List<RelayedConnection> cut;
        lock (_lock)
        {
            cut = [.. _connections];
            _connections.Clear();
        }

        cut.ForEach(connection => connection.Dispose());
    }
}
