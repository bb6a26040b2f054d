using System.Diagnostics;
using System.Net.Sockets;
using System.Text.Json.Nodes;

namespace Pageferry.Bench;

/// <summary>Controls a QEMU by its machine protocol, over a Unix socket.</summary>
internal sealed class QmpClient : IDisposable
{
    private readonly Socket _socket;
    private readonly StreamReader _reader;
    private readonly StreamWriter _writer;
    private readonly Queue<JsonNode> _events = [];

    private QmpClient(Socket socket)
    {
        _socket = socket;
        var stream = new NetworkStream(socket) { ReadTimeout = (int)PeerProcess.Patience.TotalMilliseconds };
        _reader = new StreamReader(stream);
        _writer = new StreamWriter(stream) { AutoFlush = true };
    }

    /// <summary>Connects to a QEMU that has just been started.</summary>
    public static QmpClient Connect(string path)
    {
        long began = Stopwatch.GetTimestamp();
        while (true)
        {
            var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            try
            {
                socket.Connect(new UnixDomainSocketEndPoint(path));
                var client = new QmpClient(socket);
                _ = client.Next();
                _ = client.Run("qmp_capabilities");
                return client;
            }
            catch (SocketException) when (Stopwatch.GetElapsedTime(began) < TimeSpan.FromSeconds(20))
            {
                socket.Dispose();
                Thread.Sleep(20);
            }
        }
    }

    /// <summary>Runs a command.</summary>
    /// <returns>What it returns.</returns>
    /// <exception cref="InvalidOperationException">QEMU refused.</exception>
    public JsonNode Run(string command, JsonObject? arguments = null)
    {
        _writer.WriteLine(new JsonObject { ["execute"] = command, ["arguments"] = arguments ?? [] }.ToJsonString());
        while (true)
        {
            JsonNode answer = Next();
            if (answer["return"] is { } value)
            {
                return value;
            }

            if (answer["error"] is { } error)
            {
                throw new InvalidOperationException($"QEMU refused {command}: {error["desc"]}");
            }

            _events.Enqueue(answer);
        }
    }

    /// <summary>Waits until a migration is in one of some states.</summary>
    /// <returns>The state.</returns>
    public string AwaitMigration(params string[] states)
    {
        while (true)
        {
            JsonNode seen = _events.TryDequeue(out JsonNode? before) ? before : Next();
            if (seen["event"]?.GetValue<string>() == "MIGRATION" && seen["data"]!["status"]!.GetValue<string>() is var state)
            {
                if (states.Contains(state))
                {
                    return state;
                }

                if (state is "failed" or "postcopy-paused" or "cancelled")
                {
                    throw new InvalidOperationException($"QEMU's migration is {state}: {Run("query-migrate")["error-desc"]}");
                }
            }
        }
    }

    public void Dispose()
    {
        _reader.Dispose();
        _writer.Dispose();
        _socket.Dispose();
    }

    private JsonNode Next() => JsonNode.Parse(_reader.ReadLine() ?? throw new InvalidOperationException("QEMU closed its control socket."))!;
}
