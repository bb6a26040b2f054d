using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary>Makes the sockets of packets that processes of this user come to.</summary>
internal static class PacketListener
{
    /// <summary>Begins to listen.</summary>
    /// <param name="path">The socket's path. A socket left by a process that died is replaced; nothing else is.</param>
    /// <param name="who">Who listens, as in "a holder".</param>
    /// <returns>The socket, which the caller disposes. Its mode is 0600.</returns>
    /// <exception cref="CommandException">The path is taken or can't be made.</exception>
    internal static UnixSocket Listen(string path, string who)
    {
        Clear(path, who);
        UnixSocket? listening = null;
        try
        {
            listening = UnixSocket.Listen(path, UnixSocketType.SequencedPackets);
            File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite);
            return listening;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            listening?.Dispose();
            throw new CommandException($"Could not make the socket {path} of {who}: {e.Message} Choose a path in a directory that exists and that you may write, such as /tmp/{Path.GetFileName(path)}.");
        }
    }

    private static void Clear(string path, string who)
    {
        if (!Path.Exists(path))
        {
            return;
        }

        try
        {
            UnixSocket.Connect(path, UnixSocketType.SequencedPackets).Dispose();
        }
        catch (LinuxException e) when (e.Errno == Errno.ECONNREFUSED && ControlServer.IsSocket(path))
        {
            File.Delete(path);
            return;
        }
        catch (LinuxException)
        {
            throw new CommandException($"Could not make the socket {path} of {who}: a file is there that is no such socket. It was left as it is; choose another path, or remove it.");
        }

        throw new CommandException($"Could not make the socket {path} of {who}: {who} listens there already. Use that one, or choose another path.");
    }
}
