using System.Net.Sockets;
using System.Text;
using System.Text.Json;

namespace Pageferry.Cli;

/// <summary>
/// A UNIX socket on which a guest's process takes requests: JSON objects, one per line, answered by one or more lines each.
/// Only the user who owns the process can connect.
/// </summary>
internal sealed class ControlServer : IAsyncDisposable
{
    /// <summary>The longest request line in bytes: a few paths, of 4096 bytes at most each. A client can't make us hold more.</summary>
    private const int LongestRequest = 16 << 10;

    private readonly Socket _listener;
    private readonly Func<ControlRequest, Func<ControlAnswer, Task>, Task> _handle;
    private readonly CancellationTokenSource _ending = new();
    private readonly Lock _clientsLock = new();
    private readonly HashSet<Task> _clients = [];
    private Task _accepting = Task.CompletedTask;

    private ControlServer(Socket listener, string path, Func<ControlRequest, Func<ControlAnswer, Task>, Task> handle)
    {
        _listener = listener;
        _handle = handle;
        Path = path;
    }

    /// <summary>Where the socket is.</summary>
    internal string Path { get; }

    /// <summary>Begins to take requests.</summary>
    /// <param name="path">The socket's path. A socket left by a process that died is replaced; nothing else is.</param>
    /// <param name="handle">Handles one request and passes its answers, in order, to the function it is given.</param>
    /// <returns>The server, which the caller disposes.</returns>
    /// <exception cref="CommandException">The path is taken or can't be made.</exception>
    internal static ControlServer Start(string path, Func<ControlRequest, Func<ControlAnswer, Task>, Task> handle)
    {
        ClearPath(path);
        var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            listener.Bind(new UnixDomainSocketEndPoint(path));

            // Nobody can connect between bind and listen, so nobody sees the socket with wider permissions.
            File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite);
            listener.Listen();
        }
        catch (Exception e) when (e is SocketException or IOException or UnauthorizedAccessException)
        {
            listener.Dispose();
            throw new CommandException($"Could not make the control socket {path}: {e.Message}. Choose a path in a directory that exists and that you may write, such as /tmp/guest.sock.");
        }

        var server = new ControlServer(listener, path, handle);
        server._accepting = server.AcceptAsync();
        return server;
    }

    /// <summary>Takes no more requests, lets the answers under way go out, and removes the socket.</summary>
    public async ValueTask DisposeAsync()
    {
        File.Delete(Path);
        await _ending.CancelAsync();
        await _accepting;
        _listener.Dispose();
        Task[] clients;
        lock (_clientsLock)
        {
            clients = [.. _clients];
        }

        // A client that reads nothing doesn't hold up the end of the process.
        await Task.WhenAny(Task.WhenAll(clients), Task.Delay(TimeSpan.FromSeconds(1)));
        _ending.Dispose();
    }

    private static void ClearPath(string path)
    {
        if (!System.IO.Path.Exists(path))
        {
            return;
        }

        using var probe = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            probe.Connect(new UnixDomainSocketEndPoint(path));
        }
        catch (SocketException e) when (e.SocketErrorCode == SocketError.ConnectionRefused && IsSocket(path))
        {
            File.Delete(path);
            return;
        }
        catch (SocketException)
        {
            throw new CommandException($"Could not make the control socket {path}: a file is there that is no socket of a running guest. It was left as it is; choose another path, or remove it.");
        }

        throw new CommandException($"Could not make the control socket {path}: a running guest listens there. Choose another path, or end that guest first: pageferry vm stop --control {path}");
    }

    /// <summary>Whether a file that exists is a socket: neither a directory nor openable, as open(2) of one answers ENXIO.</summary>
    internal static bool IsSocket(string path)
    {
        if (Directory.Exists(path))
        {
            return false;
        }

        try
        {
            using FileStream opened = File.OpenRead(path);
            return false;
        }
        catch (IOException)
        {
            return true;
        }
    }

    private async Task AcceptAsync()
    {
        try
        {
            while (true)
            {
                Socket client = await _listener.AcceptAsync(_ending.Token);
                Task serving = ServeAsync(client);
                lock (_clientsLock)
                {
                    _ = _clients.RemoveWhere(task => task.IsCompleted);
                    _ = _clients.Add(serving);
                }
            }
        }
        catch (OperationCanceledException)
        {
            // The end that DisposeAsync asked for.
        }
    }

    private async Task ServeAsync(Socket client)
    {
        await Task.Yield();
        using var stream = new NetworkStream(client, ownsSocket: true);
        byte[] buffer = new byte[LongestRequest];
        int filled = 0;
        try
        {
            while (true)
            {
                int end = buffer.AsSpan(0, filled).IndexOf((byte)'\n');
                if (end >= 0)
                {
                    await HandleAsync(stream, buffer.AsMemory(0, end));
                    buffer.AsSpan(end + 1, filled - end - 1).CopyTo(buffer);
                    filled -= end + 1;
                    continue;
                }

                if (filled == buffer.Length)
                {
                    await AnswerAsync(stream, Refusal($"A request has at most {LongestRequest} bytes and ends with a newline."));
                    return;
                }

                int read = await stream.ReadAsync(buffer.AsMemory(filled), _ending.Token);
                if (read == 0)
                {
                    return;
                }

                filled += read;
            }
        }
        catch (Exception e) when (e is IOException or OperationCanceledException)
        {
            // The client went away, or the process ends: either way nobody reads an answer.
        }
    }

    private async Task HandleAsync(NetworkStream stream, ReadOnlyMemory<byte> line)
    {
        ControlRequest? request;
        try
        {
            request = JsonSerializer.Deserialize(line.Span, CliJson.Default.ControlRequest);
        }
        catch (JsonException e)
        {
            await AnswerAsync(stream, Refusal($"The request is not a JSON object of this protocol: {e.Message}"));
            return;
        }

        try
        {
            await _handle(request ?? new ControlRequest(), answer => AnswerAsync(stream, answer));
        }
        catch (Exception e)
        {
            // Also what nobody thought of: a client that hears nothing believes that the process ended.
            await AnswerAsync(stream, Refusal(e.Message));
        }
    }

    private static ControlAnswer Refusal(string message) => new() { Event = ControlAnswer.Error, Message = message };

    private static Task AnswerAsync(NetworkStream stream, ControlAnswer answer) =>
        stream.WriteAsync(Encoding.UTF8.GetBytes(JsonSerializer.Serialize(answer, CliJson.Default.ControlAnswer) + "\n")).AsTask();
}
