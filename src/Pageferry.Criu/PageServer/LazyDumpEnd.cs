using System.Buffers.Binary;
using Pageferry.Linux;

namespace Pageferry.Criu;

/// <summary>How a <c>criu dump --lazy-pages</c> that was given a socket (<c>--ps-socket</c>) is ended. Closing the socket does for it what <see cref="Finish"/> does.</summary>
public static class LazyDumpEnd
{
    /// <summary>Ends it well: CRIU kills the frozen processes, which run elsewhere.</summary>
    /// <param name="socket">The other end of CRIU's.</param>
    /// <exception cref="LinuxException">CRIU is gone.</exception>
    public static void Finish(UnixSocket socket) => Send(socket, PageServerCommand.Close);

    /// <summary>Gives it up: CRIU lets the processes go on where they are.</summary>
    /// <param name="socket">The other end of CRIU's.</param>
    /// <exception cref="LinuxException">CRIU is gone.</exception>
    public static void GiveUp(UnixSocket socket) => Send(socket, PageServerCommand.GiveUp);

    private static void Send(UnixSocket socket, PageServerCommand command)
    {
        // Both forms begin with the command, and nothing else of it is looked at.
        Span<byte> message = stackalloc byte[PageServerMessage.MostBytes];
        message.Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(message, (uint)command);
        socket.Send(message);
    }
}
