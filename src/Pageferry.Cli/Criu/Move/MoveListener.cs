using System.Net;
using System.Net.Sockets;
using Pageferry.Migration;

namespace Pageferry.Cli;

/// <summary>Lets sources in, one move at a time. Whoever connects has a bounded time to say what it wants.</summary>
internal sealed class MoveListener : IDisposable
{
    /// <summary>How many may be about to say what they want; the next one is closed at once.</summary>
    private const int MostStrangers = 32;

    /// <summary>How many moves that were given up are remembered, for sources that come back to ask.</summary>
    private const int MostGivenUp = 1024;

    private readonly Socket _socket;
    private readonly MigrationSecurity? _security;
    private readonly Func<ArrivingProcess> _prepare;
    private readonly Lock _lock = new();
    private readonly SemaphoreSlim _strangers = new(MostStrangers);
    private readonly Queue<string> _givenUp = new();
    private ArrivingProcess? _current;
    private Task _moving = Task.CompletedTask;

    /// <summary>Listens.</summary>
    /// <param name="listen">Where.</param>
    /// <param name="security">Who this side is and whom it trusts; null for connections without TLS.</param>
    /// <param name="prepare">Makes what takes a move.</param>
    /// <exception cref="SocketException">The port is in use, or the address is not one of this host.</exception>
    internal MoveListener(IPEndPoint listen, MigrationSecurity? security, Func<ArrivingProcess> prepare)
    {
        _security = security;
        _prepare = prepare;
        _socket = new Socket(listen.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
        try
        {
            _socket.Bind(listen);
            _socket.Listen(MostStrangers);
        }
        catch
        {
            _socket.Dispose();
            throw;
        }

        EndPoint = (IPEndPoint)_socket.LocalEndPoint!;
    }

    /// <summary>Where it listens.</summary>
    internal IPEndPoint EndPoint { get; }

    /// <summary>Lets sources in until a move has succeeded.</summary>
    /// <param name="cancellation">Ends it.</param>
    internal async Task RunAsync(CancellationToken cancellation)
    {
        try
        {
            await AcceptAllAsync(cancellation);
        }
        finally
        {
            // It has to end a restore and remove what it has written.
            await Moving();
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _socket.Dispose();
        _strangers.Dispose();
    }

    private async Task AcceptAllAsync(CancellationToken cancellation)
    {
        var succeeded = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        while (true)
        {
            Task<Socket> accepting = _socket.AcceptAsync(cancellation).AsTask();
            if (await Task.WhenAny(accepting, succeeded.Task) != accepting)
            {
                return;
            }

            try
            {
                Begin(await accepting, succeeded, cancellation);
            }
            catch (OperationCanceledException) when (!MayEnd())
            {
                await Console.Error.WriteLineAsync("pageferry: What runs here needs its memory: this command ends when it has come.");
                cancellation = CancellationToken.None;
            }
            catch (SocketException)
            {
                // It was gone at once; or no descriptor is left, and some come free.
                await Task.Delay(TimeSpan.FromMilliseconds(10), cancellation);
            }
        }
    }

    private Task Moving()
    {
        lock (_lock)
        {
            return _moving;
        }
    }

    /// <summary>Whether nothing that runs here would lose its memory.</summary>
    private bool MayEnd()
    {
        lock (_lock)
        {
            return _current?.TryEnd() ?? true;
        }
    }

    private void Begin(Socket socket, TaskCompletionSource succeeded, CancellationToken cancellation)
    {
        if (_strangers.Wait(0, cancellation))
        {
            _ = AttachAsync(socket, succeeded, cancellation);
        }
        else
        {
            socket.Dispose();
        }
    }

    private async Task AttachAsync(Socket socket, TaskCompletionSource succeeded, CancellationToken cancellation)
    {
        MoveConnection connection;
        MoveHello hello;
        try
        {
            using var deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            deadline.CancelAfter(MoveConnection.Patience);
            (connection, hello) = await MoveConnection.AcceptAsync(socket, _security, deadline.Token);
        }
        catch (Exception failure) when (failure is IOException or SocketException or OperationCanceledException or InvalidOperationException)
        {
            return;
        }
        finally
        {
            _ = _strangers.Release();
        }

        var over = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        bool isNew = hello is { Session: null, ForPages: false };
        ArrivingProcess? arriving;
        bool isGivenUp;
        lock (_lock)
        {
            isGivenUp = hello.Session is { } session && _givenUp.Contains(session);
            if (isNew && _current is null)
            {
                _current = _prepare();
                arriving = _current;
                _moving = over.Task;
            }
            else
            {
                arriving = !isNew && _current?.Session == hello.Session ? _current : null;
            }
        }

        if (arriving is null)
        {
            using (connection)
            {
                if (isGivenUp)
                {
                    await connection.TryWelcomeAsync(new MoveWelcome(hello.Session!, MoveStage.GivenUp));
                    return;
                }

                await connection.TryPartAsync(isNew ? "Another move is under way here." : "This destination knows nothing of that move: it was started anew, or has given it up.");
            }

            return;
        }

        if (!isNew)
        {
            _ = await arriving.AttachAsync(connection, hello.ForPages);
            return;
        }

        try
        {
            if (await arriving.AttachAsync(connection, forPages: false) && await arriving.RunAsync(cancellation))
            {
                _ = succeeded.TrySetResult();
            }
        }
        finally
        {
            lock (_lock)
            {
                _current = null;
                if (arriving.IsGivenUp)
                {
                    _givenUp.Enqueue(arriving.Session);
                    if (_givenUp.Count > MostGivenUp)
                    {
                        _ = _givenUp.Dequeue();
                    }
                }
            }

            over.SetResult();
        }
    }
}
