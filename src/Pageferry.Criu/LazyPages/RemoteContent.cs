using System.Net;
using System.Net.Sockets;
using Microsoft.Extensions.Logging;
using Pageferry.Memory;

namespace Pageferry.Criu;

/// <summary>Pages from a page server. It answers in the order of the requests, of which many are on their way.</summary>
internal sealed class RemoteContent : IContent
{
    private const int PagesPerFault = 16;

    /// <summary>What is ahead of a page that is waited for: up to 2 MiB. Fewer pages at a time cost more: CRIU goes over its pipes from the beginning for each request.</summary>
    private const int FillsOnTheirWay = 2;

    /// <summary>How long the first answer may take: a server of another form may wait for more of a request.</summary>
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(20);

    private readonly Socket _socket;
    private readonly EndPoint _server;
    private readonly PageServerForm _form;
    private readonly ILogger _logger;
    private readonly Queue<Asked> _asked = new(1024);
    private readonly Lock _asking = new();
    private readonly SemaphoreSlim _room = new(FillsOnTheirWay);
    private readonly byte[] _request = new byte[PageServerMessage.MostBytes];
    private readonly byte[] _answer = new byte[PageServerMessage.MostBytes];
    private volatile bool _hasFailed;
    private volatile bool _isDisposed;

    private RemoteContent(Socket socket, EndPoint server, PageServerForm form, ILogger logger)
    {
        _socket = socket;
        _server = server;
        _form = form;
        _logger = logger;
        new Thread(ReceiveAll) { IsBackground = true, Name = "page server" }.Start();
    }

    internal static RemoteContent Connect(EndPoint server, PageServerForm form, ILogger logger)
    {
        bool isUnix = server is UnixDomainSocketEndPoint;
        var socket = new Socket(server.AddressFamily, SocketType.Stream, isUnix ? ProtocolType.Unspecified : ProtocolType.Tcp);
        try
        {
            if (!isUnix)
            {
                socket.NoDelay = true;
            }

            socket.Connect(server);
            return new RemoteContent(socket, server, form, logger);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public void Demand(LazyProcess process, ReadOnlySpan<ulong> pages)
    {
        foreach (ulong page in pages)
        {
            ulong most = Math.Min(PagesPerFault, process.Memory.PageCount - page);
            int count = 1;
            while ((ulong)count < most && process.States[page + (ulong)count] == PageState.Absent && IsNext(process, page, count))
            {
                count++;
            }

            Ask(new Asked(process, page, count, IsFill: false));
        }
    }

    /// <inheritdoc/>
    public void Fill(LazyProcess process, ulong page, int count)
    {
        _room.Wait();
        Ask(new Asked(process, page, count, IsFill: true));
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _isDisposed = true;
        try
        {
            lock (_asking)
            {
                new PageServerMessage(PageServerCommand.Close, PagemapFlags.None, 0, 0, 0).Write(_request, _form);
                _ = _socket.Send(_request.AsSpan(0, PageServerMessage.BytesOf(_form)));
            }
        }
        catch (SocketException)
        {
            // It is gone already.
        }

        _socket.Dispose();
    }

    private static bool IsNext(LazyProcess process, ulong page, int count) =>
        process.Memory.GpaOf(page + (ulong)count) == process.Memory.GpaOf(page) + ((ulong)count * Page.Size);

    private void Ask(Asked asked)
    {
        if (_hasFailed)
        {
            return;
        }

        lock (_asking)
        {
            _asked.Enqueue(asked);
            new PageServerMessage(PageServerCommand.Get, PagemapFlags.None, (ulong)asked.Count, asked.Process.Memory.GpaOf(asked.Page), (ulong)asked.Process.Pid).Write(_request, _form);
            try
            {
                _ = _socket.Send(_request.AsSpan(0, PageServerMessage.BytesOf(_form)));
            }
            catch (SocketException)
            {
                // Who receives finds out too, and says it.
            }
        }
    }

    private void ReceiveAll()
    {
        bool isFirst = true;
        try
        {
            while (true)
            {
                Receive(_answer.AsSpan(0, 1));
                if (isFirst)
                {
                    _socket.ReceiveTimeout = (int)s_patience.TotalMilliseconds;
                }

                Receive(_answer.AsSpan(1, PageServerMessage.BytesOf(_form) - 1));
                _socket.ReceiveTimeout = 0;
                Take(PageServerMessage.Read(_answer, _form), isFirst);
                isFirst = false;
            }
        }
        catch (Exception failure) when (failure is IOException or SocketException or ObjectDisposedException)
        {
            if (!_isDisposed)
            {
                _hasFailed = true;
                _ = _room.Release(int.MaxValue / 2);
                string form = isFirst ? $" {Mismatch()}" : "";
                LazyLog.Failed(_logger, $"The page server {_server} failed: {failure.Message}{form}");
            }
        }
    }

    private void Take(in PageServerMessage answer, bool isFirst)
    {
        Asked asked;
        lock (_asking)
        {
            asked = _asked.TryDequeue(out Asked oldest) ? oldest : throw new PageServerException("It sent pages that nobody asked for.");
        }

        ulong address = asked.Process.Memory.GpaOf(asked.Page);
        if (answer.Command != PageServerCommand.AddWithFlags || answer.Address != address || answer.Id != (ulong)asked.Process.Pid || answer.Pages > (ulong)asked.Count)
        {
            throw new PageServerException(
                $"Asked for {asked.Count} pages at 0x{address:x} of process {asked.Process.Pid}, it answered with {answer.Pages} at 0x{answer.Address:x} of {answer.Id}.{(isFirst ? $" {Mismatch()}" : "")}");
        }

        if (answer.Pages == 0)
        {
            throw new PageServerException($"It does not have the page at 0x{address:x} of process {asked.Process.Pid}: it serves other images, or the dump it came with has ended.");
        }

        asked.Process.Receive(asked.Page, (int)answer.Pages, isDemand: false, (_, content) => Receive(content));
        if (answer.Pages < (ulong)asked.Count)
        {
            Ask(asked with { Page = asked.Page + answer.Pages, Count = asked.Count - (int)answer.Pages });
        }
        else if (asked.IsFill)
        {
            _ = _room.Release();
        }
    }

    private string Mismatch() => _form == PageServerForm.Header24
        ? "The images are of CRIU 4.1 or older, with headers of 24 bytes: the server may be of CRIU 4.2, whose headers have 32."
        : "The images are of CRIU 4.2, with headers of 32 bytes: the server may be of CRIU 4.1 or older, whose headers have 24.";

    private void Receive(Span<byte> bytes)
    {
        while (!bytes.IsEmpty)
        {
            int received = _socket.Receive(bytes);
            bytes = received > 0 ? bytes[received..] : throw new PageServerException("It closed the connection.");
        }
    }

    /// <summary>Pages that were asked for, in one piece.</summary>
    private readonly record struct Asked(LazyProcess Process, ulong Page, int Count, bool IsFill);
}
