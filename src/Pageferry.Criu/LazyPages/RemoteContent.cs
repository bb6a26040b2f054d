using System.Diagnostics;
using System.Net;
using System.Net.NetworkInformation;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Microsoft.Extensions.Logging;
using Pageferry.Memory;

namespace Pageferry.Criu;

/// <summary>
/// Pages from a page server. It answers in the order of the requests, of which many are on their way. When the connection is lost, another one is made, however long that takes, and what was not
/// answered is asked for again. One that is silent is kept until another one is answered.
/// </summary>
internal sealed class RemoteContent : IContent
{
    /// <summary>How long a server may say nothing that was asked for something. CRIU goes over its pipes from the beginning for each request.</summary>
    internal static readonly TimeSpan LongestSilence = TimeSpan.FromSeconds(20);

    private const int PagesPerFault = 16;

    /// <summary>Threads that take turns: while one places what it received, the other one receives.</summary>
    private const int Takers = 2;

    /// <summary>What is ahead of a page that is waited for: up to 3 MiB. With less the server waits for requests while what came is taken in; fewer pages at a time cost more: CRIU goes over its pipes from the beginning for each request.</summary>
    private const int FillsOnTheirWay = 3;

    /// <summary>Requests that are outstanding without memory being taken for them: one for each thread of the processes that waits, and some.</summary>
    private const int UsualRequests = 1024;

    /// <summary>1, 2 and 4 seconds apart.</summary>
    private const int ConnectRetries = 2;

    private const int IPPROTO_TCP = 6;
    private const int TCP_SYNCNT = 7;

    private static readonly TimeSpan s_firstDelay = TimeSpan.FromMilliseconds(100);
    private static readonly TimeSpan s_longestDelay = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan s_parting = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan s_betweenLooks = TimeSpan.FromMilliseconds(100);

    private readonly EndPoint _server;
    private readonly PageServerForm _form;
    private readonly ILogger _logger;
    private readonly TimeSpan _longestSilence;
    private readonly Queue<Asked> _asked = new(UsualRequests);
    private readonly Lock _asking = new();
    private readonly SemaphoreSlim _room = new(FillsOnTheirWay);
    private readonly ManualResetEventSlim _isDisposed = new();
    private readonly byte[] _request = new byte[PageServerMessage.MostBytes];
    private readonly byte[] _answer = new byte[PageServerMessage.MostBytes];
    private readonly NativeBuffer[] _buffers = [.. Enumerable.Range(0, Takers).Select(_ => new NativeBuffer(PageLane.BufferBytes))];
    private Thread[] _threads = [];

    /// <summary>Held by who receives.</summary>
    private readonly Lock _turn = new();

    /// <summary>Under the lock: the connection, null while there is none, and whether the processes may run.</summary>
    private Socket? _socket;
    private bool _isHandedOver;

    /// <summary>Of who receives: the connection, null until there is the first, whether there will be none any more, how long to wait for the next one, and what was last said of a failure.</summary>
    private Socket? _receiving;
    private bool _isOver;

    /// <summary>Of who receives: a connection that is answered in place of a silent one, and how many requests were sent over it.</summary>
    private (Socket Socket, int Sent)? _next;
    private TimeSpan _delay = s_firstDelay;
    private string? _told;
    private bool _hasAnswered;

    /// <summary>Takes a page server's address.</summary>
    /// <param name="server">Where it listens.</param>
    /// <param name="form">What the images say of its headers.</param>
    /// <param name="logger">Hears of lost connections.</param>
    /// <param name="longestSilence"><see cref="LongestSilence"/>, or less for tests.</param>
    internal RemoteContent(EndPoint server, PageServerForm form, ILogger logger, TimeSpan longestSilence)
    {
        _server = server;
        _form = form;
        _logger = logger;
        _longestSilence = longestSilence;
    }

    /// <summary>Whether nothing listens at an address, as far as that is seen without a connection: on loopback alone.</summary>
    internal static bool IsRefused(EndPoint server) =>
        server is IPEndPoint at && IPAddress.IsLoopback(at.Address) && !Array.Exists(IPGlobalProperties.GetIPGlobalProperties().GetActiveTcpListeners(), listener => listener.Port == at.Port);

    /// <summary>
    /// Connects, if that was not done yet. Not before a process is handed over: CRIU's dump takes one connection only, and its end for that of the restore, at which it kills what it keeps frozen.
    /// </summary>
    /// <returns>This.</returns>
    /// <exception cref="SocketException">The server can't be reached.</exception>
    internal RemoteContent Connect()
    {
        if (_receiving is null)
        {
            _receiving = Connect(_server, _longestSilence);
            _ = Begin(_receiving);
            _threads = [.. Enumerable.Range(0, Takers).Select(taker => new Thread(() => TakeAll(taker)) { IsBackground = true, Name = "page server" })];
            Array.ForEach(_threads, static thread => thread.Start());
        }

        return this;
    }

    /// <summary>All processes are handed over, and may run: from now on a dump that keeps them is not to let them go on at the source.</summary>
    internal void EndHandover()
    {
        lock (_asking)
        {
            _isHandedOver = true;
            Linger(_socket);
        }
    }

    /// <summary>Nothing is wanted any more. As long as not all processes are handed over, a dump that keeps them lets them go on at the source.</summary>
    internal void GiveUp()
    {
        lock (_asking)
        {
            if (!_isHandedOver)
            {
                _isDisposed.Set();
                Send(_socket, new PageServerMessage(PageServerCommand.GiveUp, PagemapFlags.None, 0, 0, 0));
            }
        }
    }

    /// <inheritdoc/>
    public void Demand(LazyProcess process, ReadOnlySpan<ulong> pages)
    {
        foreach (ulong page in pages)
        {
            // Asked for again it would come no sooner: answers come in the order of the requests.
            if (!process.OnTheirWay.Add(page))
            {
                continue;
            }

            ulong most = Math.Min(PagesPerFault, process.Memory.PageCount - page);
            int count = 1;
            while ((ulong)count < most && process.IsLeft(page + (ulong)count) && IsNext(process, page, count))
            {
                count++;
            }

            process.OnTheirWay.AddRun(page, (ulong)count);

            Ask(new Asked(process, page, count, IsFill: false));
        }
    }

    /// <summary>One: it only asks.</summary>
    public int Fillers => 1;

    /// <summary>One for each thread that takes turns.</summary>
    /// <inheritdoc/>
    public PageLane[] CreateLanes(FaultEngine engine) => [.. _buffers.Select(engine.CreateLane)];

    /// <inheritdoc/>
    public void Fill(LazyProcess process, int filler, ulong page, int count)
    {
        while (!_room.Wait(s_betweenLooks))
        {
            if (process.HasEnded)
            {
                return;
            }
        }

        process.OnTheirWay.AddRun(page, (ulong)count);
        Ask(new Asked(process, page, count, IsFill: true));
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        GiveUp();
        _isDisposed.Set();
        lock (_asking)
        {
            if (_isHandedOver)
            {
                Send(_socket, new PageServerMessage(PageServerCommand.Close, PagemapFlags.None, 0, 0, 0));
            }

            End(_socket, SocketShutdown.Send);
        }

        if (_threads.Length == 0)
        {
            Array.ForEach(_buffers, static buffer => buffer.Dispose());
        }

        // What the server still says is taken: a connection that is closed before is reset, and the server would take it for lost.
        if (!Array.TrueForAll(_threads, static thread => thread.Join(s_parting)))
        {
            _receiving!.Dispose();
        }
    }

    private static bool IsNext(LazyProcess process, ulong page, int count) =>
        process.Memory.GpaOf(page + (ulong)count) == process.Memory.GpaOf(page) + ((ulong)count * Page.Size);

    private static Socket Connect(EndPoint server, TimeSpan longestSilence)
    {
        int silence = (int)longestSilence.TotalMilliseconds;
        bool isTcp = server is IPEndPoint;
        var socket = new Socket(server.AddressFamily, SocketType.Stream, isTcp ? ProtocolType.Tcp : ProtocolType.Unspecified) { ReceiveTimeout = silence, SendTimeout = silence };
        try
        {
            if (isTcp)
            {
                socket.NoDelay = true;

                // With the kernel's own times, which are long: a dump of CRIU's takes no other connection.
                socket.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.KeepAlive, true);

                // A host that does not answer is tried anew by who looks for it; the kernel's own retries have ever longer pauses, up to a minute.
                socket.SetRawSocketOption(IPPROTO_TCP, TCP_SYNCNT, MemoryMarshal.AsBytes<int>([ConnectRetries]));
            }

            socket.Connect(server);
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    /// <summary>Has a connection end with a reset until all processes are handed over, also if this process is killed: a dump takes that for a failure, and any other end for the end of the restore.</summary>
    private void Linger(Socket? socket) => socket?.LingerState = new LingerOption(enable: !_isHandedOver, 0);

    private void Ask(Asked asked)
    {
        lock (_asking)
        {
            _asked.Enqueue(asked with { At = Stopwatch.GetTimestamp() });
            SendRequest(_socket, in asked);
        }
    }

    /// <summary>Sends a request, if there is a connection; under the lock.</summary>
    private void SendRequest(Socket? socket, in Asked asked) =>
        Send(socket, new PageServerMessage(PageServerCommand.Get, PagemapFlags.None, (ulong)asked.Count, asked.Process.Memory.GpaOf(asked.Page), (ulong)asked.Process.Pid));

    private void Send(Socket? socket, in PageServerMessage message)
    {
        if (socket is null)
        {
            return;
        }

        message.Write(_request, _form);
        try
        {
            _ = socket.Send(_request.AsSpan(0, PageServerMessage.BytesOf(_form)));
        }
        catch (SocketException)
        {
            // Part of it may have gone. Who receives finds the end, and says it.
            End(socket, SocketShutdown.Both);
        }
    }

    /// <summary>Ends a connection in a direction, if there is one; under the lock.</summary>
    private static void End(Socket? socket, SocketShutdown how)
    {
        try
        {
            socket?.Shutdown(how);
        }
        catch (SocketException)
        {
            // It has ended by itself.
        }
    }

    /// <summary>Takes a new connection into use: asks for all that was not answered, what is waited for first.</summary>
    /// <param name="socket">The connection.</param>
    /// <param name="sent">How many of the oldest were asked for over it already.</param>
    /// <returns>How many requests were repeated.</returns>
    private int Begin(Socket socket, int sent = 0)
    {
        lock (_asking)
        {
            Linger(socket);
            if (_isDisposed.IsSet)
            {
                socket.Dispose();
                return 0;
            }

            _socket = socket;
            Asked[] outstanding = [.. _asked.Take(sent), .. _asked.Skip(sent).OrderBy(asked => asked.IsFill)];
            _asked.Clear();
            for (int i = 0; i < outstanding.Length; i++)
            {
                _asked.Enqueue(outstanding[i] with { At = Stopwatch.GetTimestamp() });
                if (i >= sent)
                {
                    SendRequest(socket, in outstanding[i]);
                }
            }

            return outstanding.Length;
        }
    }

    private void TakeAll(int taker)
    {
        DemandThread.Begin();
        using NativeBuffer buffer = _buffers[taker];
        while (TryReceive(buffer, out Asked answered))
        {
            answered.Process.Place(answered.Page, answered.Count, taker);
        }
    }

    /// <summary>Receives the next answer, over as many connections as that takes.</summary>
    /// <param name="buffer">Where the content is put.</param>
    /// <param name="answered">What of the request was answered.</param>
    /// <returns>False if no answer is wanted any more.</returns>
    private bool TryReceive(NativeBuffer buffer, out Asked answered)
    {
        lock (_turn)
        {
            while (!_isOver)
            {
                try
                {
                    answered = ReceiveAnswer(buffer);
                    return true;
                }
                catch (Exception failure) when (failure is IOException or SocketException or ObjectDisposedException)
                {
                    lock (_asking)
                    {
                        _socket = null;
                        _receiving!.Dispose();
                    }

                    if (!_isDisposed.IsSet)
                    {
                        Tell($"failed: {failure.Message.TrimEnd('.')}.{Mismatch()}");
                    }

                    _isOver = !TryReconnect();
                }
            }
        }

        answered = default;
        return false;
    }

    /// <summary>Connects again, with longer and longer pauses between attempts as long as no answer comes.</summary>
    /// <returns>False when that is no longer wanted.</returns>
    private bool TryReconnect()
    {
        if (_next is { } next)
        {
            _next = null;
            _receiving = next.Socket;
            LazyLog.Reconnected(_logger, _server, Begin(next.Socket, next.Sent));
            return true;
        }

        while (!_isDisposed.Wait(_delay))
        {
            _delay = _delay * 2 < s_longestDelay ? _delay * 2 : s_longestDelay;
            try
            {
                _receiving = Connect(_server, _longestSilence);
                int repeated = Begin(_receiving);
                LazyLog.Reconnected(_logger, _server, repeated);
                return true;
            }
            catch (SocketException refused) when (refused.SocketErrorCode == SocketError.ConnectionRefused && _server is IPEndPoint { Port: var port })
            {
                Tell($"is gone: nothing listens there. CRIU's own end with their first client, and with the dump that they belong to. One that serves images can be started again: pageferry criu page-server --lazy-pages -D IMAGES --port {port}");
            }
            catch (SocketException failure)
            {
                Tell($"can't be reached: {failure.Message}.");
            }
        }

        return false;
    }

    /// <summary>Says why there is no answer, unless that is known.</summary>
    private void Tell(string what)
    {
        if (_told != what)
        {
            _told = what;
            LazyLog.Lost(_logger, _server, what);
        }
    }

    private Asked ReceiveAnswer(NativeBuffer buffer)
    {
        Receive(_answer.AsSpan(0, PageServerMessage.BytesOf(_form)));
        var answer = PageServerMessage.Read(_answer, _form);
        Asked asked;
        lock (_asking)
        {
            // It stays there until all of it is in: a connection that is lost meanwhile begins anew with it.
            asked = _asked.TryPeek(out Asked oldest) ? oldest : throw new PageServerException("It sent pages that nobody asked for.");
        }

        ulong address = asked.Process.Memory.GpaOf(asked.Page);
        if (answer.Command != PageServerCommand.AddWithFlags || answer.Address != address || answer.Id != (ulong)asked.Process.Pid || answer.Pages > (ulong)asked.Count)
        {
            throw new PageServerException($"Asked for {Name(in asked)}, it answered with {answer.Pages} at 0x{answer.Address:x} of {answer.Id}");
        }

        if (answer.Pages == 0)
        {
            throw new PageServerException($"It does not have the page at 0x{address:x} of process {asked.Process.Pid}: it serves other images, or the dump it came with has ended");
        }

        Receive(buffer.Span(0, (int)answer.Pages * Page.Size));
        lock (_asking)
        {
            _ = _asked.Dequeue();
        }

        _hasAnswered = true;
        _delay = s_firstDelay;
        _told = null;
        if (answer.Pages < (ulong)asked.Count)
        {
            Ask(asked with { Page = asked.Page + answer.Pages, Count = asked.Count - (int)answer.Pages });
        }
        else if (asked.IsFill)
        {
            _ = _room.Release();
        }

        return asked with { Count = (int)answer.Pages };
    }

    /// <summary>
    /// Whether something was asked for long ago, and the server answers over another connection, which is the next one then. The silent one is kept until it does: CRIU's dump takes no other, and
    /// the end of its one for that of the restore.
    /// </summary>
    private bool IsOverdue()
    {
        Asked oldest;
        lock (_asking)
        {
            if (!_asked.TryPeek(out oldest) || Stopwatch.GetElapsedTime(oldest.At) < _longestSilence)
            {
                return false;
            }
        }

        Tell($"has said nothing for {_longestSilence.TotalSeconds:0.#} s, asked for {Name(in oldest)}.{Mismatch()} The connection is kept until another one is answered.");

        // Who stands between on a Unix socket makes the other connection.
        return _server is IPEndPoint && IsAnsweredElsewhere();
    }

    private bool IsAnsweredElsewhere()
    {
        Socket? other = null;
        try
        {
            other = Connect(_server, _longestSilence);
            int sent = 0;
            lock (_asking)
            {
                Linger(other);
                foreach (Asked asked in _asked)
                {
                    SendRequest(other, in asked);
                    sent++;
                }
            }

            List<Socket> readable = [];
            while (!_isDisposed.IsSet && readable.Count == 0)
            {
                readable = [_receiving!, other];
                Socket.Select(readable, null, null, s_betweenLooks);
            }

            // A tunnel takes connections, and ends them when it finds nobody behind it.
            if (!readable.Contains(_receiving!) && other.Available > 0)
            {
                _next = (other, sent);
                return true;
            }
        }
        catch (Exception failure) when (failure is SocketException or ObjectDisposedException)
        {
            // It takes no other: what there is to say was said.
        }

        other?.Dispose();
        return false;
    }

    private static string Name(in Asked asked) => $"{asked.Count} pages at 0x{asked.Process.Memory.GpaOf(asked.Page):x} of process {asked.Process.Pid}";

    /// <summary>What may be wrong with a server of which no answer was understood yet. On a Unix socket somebody stands between who knows the form.</summary>
    private string Mismatch() => _hasAnswered || _server is not IPEndPoint ? string.Empty : _form == PageServerForm.Header24
        ? " The images are of CRIU 4.1 or older, with headers of 24 bytes: the server may be of CRIU 4.2, whose headers have 32."
        : " The images are of CRIU 4.2, with headers of 32 bytes: the server may be of CRIU 4.1 or older, whose headers have 24.";

    private void Receive(Span<byte> bytes)
    {
        while (!bytes.IsEmpty)
        {
            try
            {
                int received = _receiving!.Receive(bytes);
                bytes = received > 0 ? bytes[received..] : throw new PageServerException("It closed the connection");
            }
            catch (SocketException silence) when (silence.SocketErrorCode is SocketError.TimedOut or SocketError.WouldBlock)
            {
                if (IsOverdue())
                {
                    throw new PageServerException("It was silent, and answers over another connection");
                }
            }
        }
    }

    /// <summary>Pages that were asked for, in one piece.</summary>
    private readonly record struct Asked(LazyProcess Process, ulong Page, int Count, bool IsFill, long At = 0);
}
