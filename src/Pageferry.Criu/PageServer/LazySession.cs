using System.Buffers;
using System.Globalization;
using Microsoft.Extensions.Logging;
using Pageferry.Memory;

namespace Pageferry.Criu;

/// <summary>
/// Answers one client's requests, in their order: CRIU's own client takes the next answer for that of its oldest request, whatever it says.
/// </summary>
/// <param name="connection">The client.</param>
/// <param name="processes">The processes whose pages are served.</param>
/// <param name="served">Hears how many pages were sent.</param>
/// <param name="logger">Hears of what can't be answered; null for nobody.</param>
internal sealed class LazySession(PageServerConnection connection, IReadOnlyDictionary<ulong, ProcessPages> processes, Action<ulong> served, ILogger? logger)
{
    /// <summary>The most pages of one answer, whatever is asked for: a client takes less, and asks again.</summary>
    private const ulong MostPages = 1 << 14;

    /// <summary>How much is read at a time, beside a header.</summary>
    private const int PiecePages = 64;

    private ulong _pages;
    private ulong _requests;

    /// <summary>Answers until the client is done.</summary>
    /// <exception cref="IOException">The client said what makes no sense or went away, or the images can't be read.</exception>
    /// <exception cref="System.Net.Sockets.SocketException">The connection failed.</exception>
    internal void Serve()
    {
        byte[] buffer = ArrayPool<byte>.Shared.Rent(PageServerMessage.MostBytes + (PiecePages * Page.Size));
        try
        {
            while (connection.TryReceive(PageServerMessage.FormOfRequest, out PageServerMessage message))
            {
                switch (message.Command)
                {
                    case PageServerCommand.Get:
                        Answer(in message, buffer);
                        break;
                    case PageServerCommand.Close or PageServerCommand.ForceClose:
                        connection.Send([0, 0, 0, 0]);
                        connection.AwaitEnd();
                        Done();
                        return;
                    default:
                        throw new PageServerException($"The client sent command {message.Command}, which a server that serves lazily does not take. To receive a dump, start it without --lazy-pages.");
                }
            }

            Done();
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    private void Answer(in PageServerMessage request, byte[] buffer)
    {
        if (request.Address % Page.Size != 0 || request.Pages == 0)
        {
            throw new PageServerException($"The client asked for {request.Pages} pages at 0x{request.Address:x}: a request is for at least one whole page.");
        }

        if (!connection.HasSpoken)
        {
            connection.HasSpoken = true;
            if (logger is not null)
            {
                PageServerLog.Began(logger, connection.Peer, PageServerMessage.BytesOf(connection.Form!.Value));
            }
        }

        _requests++;
        PageExtent stored = default;
        if (!(processes.TryGetValue(request.Id, out ProcessPages? process) && process.TryFind(request.Address, out stored)) && logger is not null)
        {
            PageServerLog.NotThere(logger, connection.Peer, request.Id, string.Create(CultureInfo.InvariantCulture, $"0x{request.Address:x}"));
        }

        // What is not there is 0 pages.
        ulong pages = Math.Min(Math.Min(request.Pages, stored.PageCount), MostPages);
        PageServerForm form = connection.Form!.Value;
        (request with { Command = PageServerCommand.AddWithFlags, Flags = PagemapFlags.Present, Pages = pages }).Write(buffer, form);
        int header = PageServerMessage.BytesOf(form);
        ulong sent = 0;
        do
        {
            ulong piece = Math.Min(pages - sent, PiecePages);
            Span<byte> content = buffer.AsSpan(header, (int)piece * Page.Size);
            if (piece > 0)
            {
                stored.File.Read(stored.FirstPage + sent, content);
            }

            connection.Send(buffer.AsSpan(0, header + content.Length));
            sent += piece;
            header = 0;
        }
        while (sent < pages);

        _pages += pages;
        served(pages);
    }

    private void Done()
    {
        if (logger is not null)
        {
            PageServerLog.Done(logger, connection.Peer, _pages, _requests);
        }
    }
}
