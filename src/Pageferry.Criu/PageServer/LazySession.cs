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
        DemandThread.Begin();
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
                    case PageServerCommand.GiveUp:
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
        // CRIU writes long runs as several entries; what lies together is answered together, and what is not there by 0 pages.
        ProcessPages? process = processes.GetValueOrDefault(request.Id);
        ulong most = Math.Min(request.Pages, MostPages);
        ulong pages = 0;
        while (pages < most && process?.TryFind(request.Address + (pages * Page.Size), out PageExtent extent) == true)
        {
            pages = Math.Min(most, pages + extent.PageCount);
        }

        if (pages == 0 && logger is not null)
        {
            PageServerLog.NotThere(logger, connection.Peer, request.Id, string.Create(CultureInfo.InvariantCulture, $"0x{request.Address:x}"));
        }

        PageServerForm form = connection.Form!.Value;
        (request with { Command = PageServerCommand.AddWithFlags, Flags = PagemapFlags.Present, Pages = pages }).Write(buffer, form);
        int header = PageServerMessage.BytesOf(form);
        ulong sent = 0;
        do
        {
            int content = pages == 0 ? 0 : Read(process!, request.Address + (sent * Page.Size), pages - sent, buffer.AsSpan(header, PiecePages * Page.Size));
            connection.Send(buffer.AsSpan(0, header + content));
            sent += (ulong)content / Page.Size;
            header = 0;
        }
        while (sent < pages);

        _pages += pages;
        served(pages);
    }

    /// <summary>Reads the pages that lie together from an address on, as many as are wanted and there is room for.</summary>
    /// <returns>How many bytes.</returns>
    private static int Read(ProcessPages process, ulong address, ulong wanted, Span<byte> room)
    {
        _ = process.TryFind(address, out PageExtent extent);
        int length = (int)Math.Min(Math.Min(wanted, extent.PageCount) * Page.Size, (ulong)room.Length);
        extent.File.Read(extent.FirstPage, room[..length]);
        return length;
    }

    private void Done()
    {
        if (logger is not null)
        {
            PageServerLog.Done(logger, connection.Peer, _pages, _requests);
        }
    }
}
