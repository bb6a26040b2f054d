using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary>Where the engines come to that a supervisor starts: a socket of packets that processes of this user can connect to.</summary>
internal sealed class EngineSocket : IDisposable
{
    private static readonly TimeSpan s_glance = TimeSpan.FromMilliseconds(50);

    private readonly UnixSocket _listening;
    private readonly uint _user = UnixPeer.OfThisProcess().UserId;

    private EngineSocket(UnixSocket listening, string path)
    {
        _listening = listening;
        Path = path;
    }

    /// <summary>Where it is.</summary>
    internal string Path { get; }

    /// <summary>Begins to listen.</summary>
    /// <param name="path">The socket's path. A socket left by a process that died is replaced; nothing else is.</param>
    /// <returns>The socket, which the caller disposes.</returns>
    /// <exception cref="CommandException">The path is taken or can't be made.</exception>
    internal static EngineSocket Listen(string path) => new(PacketListener.Listen(path, "a guest's process"), path);

    /// <summary>Waits for an engine. One that comes while another one works waits until it is taken: it stands by.</summary>
    /// <param name="isOver">Whether none is waited for any longer.</param>
    /// <param name="refused">Hears of one that is not taken.</param>
    /// <returns>The engine, which the caller disposes; null if none is waited for any longer.</returns>
    internal SupervisedEngine? Await(Func<bool> isOver, Action<string> refused)
    {
        var poll = new Poll(_listening.Descriptor);
        while (!isOver())
        {
            if (poll.Wait((int)s_glance.TotalMilliseconds) == 0)
            {
                continue;
            }

            try
            {
                if (SupervisedEngine.TryTake(_listening.Accept(), _user) is { } engine)
                {
                    return engine;
                }
            }
            catch (CommandException e)
            {
                refused(e.Message);
            }
        }

        return null;
    }

    /// <summary>Listens no longer; the socket's file is removed.</summary>
    public void Dispose()
    {
        if (!_listening.Descriptor.IsClosed)
        {
            File.Delete(Path);
            _listening.Dispose();
        }
    }
}
