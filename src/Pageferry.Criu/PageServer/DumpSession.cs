using System.Buffers;
using System.Buffers.Binary;
using Microsoft.Extensions.Logging;
using Pageferry.Memory;

namespace Pageferry.Criu;

/// <summary>Takes the pages that one <c>criu dump --page-server</c> sends, and writes them as images.</summary>
/// <param name="connection">The dump.</param>
/// <param name="images">Where its images go.</param>
/// <param name="takeTurn">Says whether this may be the dump: asked once, when it begins.</param>
/// <param name="logger">Hears what comes; null for nobody.</param>
internal sealed class DumpSession(PageServerConnection connection, ReceivedImages images, Func<bool> takeTurn, ILogger? logger)
{
    private const int PieceBytes = 1 << 20;

    /// <summary>Whether the client has begun a dump, and no other had before.</summary>
    internal bool HasBegun => connection.HasSpoken;

    /// <summary>Receives until the dump is done.</summary>
    /// <exception cref="IOException">The dump said what makes no sense or went away, or an image can't be written.</exception>
    /// <exception cref="System.Net.Sockets.SocketException">The connection failed.</exception>
    internal void Receive()
    {
        byte[] buffer = ArrayPool<byte>.Shared.Rent(PieceBytes);
        try
        {
            while (true)
            {
                if (!connection.TryReceive(bytes => PageServerMessage.FormOfOpening(bytes), out PageServerMessage message))
                {
                    throw new PageServerException("The dump closed the connection before it was done.");
                }

                if (message.Command is PageServerCommand.Close or PageServerCommand.ForceClose)
                {
                    if (!HasBegun)
                    {
                        throw new PageServerException("The client ended a dump that it had not begun.");
                    }

                    break;
                }

                Take(in message, buffer);
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }

        images.Complete();
        connection.Send([0, 0, 0, 0]);
    }

    private void Take(in PageServerMessage message, byte[] buffer)
    {
        switch (message.Command)
        {
            case PageServerCommand.Open or PageServerCommand.OpenWithAnswer:
                Begin(in message);
                bool hasParent = images.Open(message.Id, connection.Form!.Value);
                if (logger is not null)
                {
                    PageServerLog.Receiving(logger, connection.Peer, images.Name);
                }

                if (message.Command == PageServerCommand.OpenWithAnswer)
                {
                    connection.Send([hasParent ? (byte)1 : (byte)0]);
                }

                break;
            case PageServerCommand.Parent:
                Begin(in message);
                Span<byte> answer = stackalloc byte[sizeof(int)];
                BinaryPrimitives.WriteInt32LittleEndian(answer, images.HasParent(message.Id) ? 1 : 0);
                connection.Send(answer);
                break;
            case PageServerCommand.Add:
                Add(message with { Flags = PagemapFlags.Present }, buffer);
                break;
            case PageServerCommand.Hole:
                Add(message with { Flags = PagemapFlags.Parent }, buffer);
                break;
            case PageServerCommand.AddWithFlags:
                Add(message, buffer);
                break;
            case PageServerCommand.Get:
                throw new PageServerException("The client asked for pages, and this server receives a dump. To serve pages, start it with --lazy-pages.");
            default:
                throw new PageServerException($"The dump sent command {message.Command}, which is none of CRIU's page-server protocol.");
        }
    }

    /// <summary>Takes the turn, unless it has it. Who says anything else before, or opens what can't be, is no dump, and none of theirs ends by it.</summary>
    private void Begin(in PageServerMessage message)
    {
        ReceivedImages.Check(message.Id);
        if (message.Pages != 0 || message.Address != 0)
        {
            throw new PageServerException($"The client opened {message.Pages} pages at 0x{message.Address:x}: what is opened is a process or shared memory.");
        }

        if (!connection.HasSpoken)
        {
            connection.HasSpoken = takeTurn() ? true : throw new PageServerException("Another dump is being received.");
        }
    }

    private void Add(in PageServerMessage message, byte[] buffer)
    {
        images.AddEntry(in message);
        if (message.Flags.HasFlag(PagemapFlags.Present))
        {
            // The entry's end was found to be an address.
            for (ulong left = message.Pages * Page.Size; left > 0;)
            {
                Span<byte> piece = buffer.AsSpan(0, (int)Math.Min(left, (ulong)buffer.Length));
                connection.Receive(piece);
                images.AddContent(piece);
                left -= (ulong)piece.Length;
            }
        }
    }
}
