using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary>
/// Keeps file descriptors and a blob under a name and hands them to who proves the secret: so what they are open on outlives the process that made it. It never looks at what
/// they are, so nothing of a guest's memory is ever read or copied here. One thread, nothing that waits for a client, and a bound for everything that a client can make it keep.
/// </summary>
internal sealed class Holder : IDisposable
{
    /// <summary>The most names.</summary>
    internal const int MostEntries = 16;

    /// <summary>The most connections; what comes beyond is closed at once.</summary>
    internal const int MostClients = 24;

    /// <summary>The most descriptors under all names: as many files as a process may have open by default, less those of its own and of one packet.</summary>
    internal const int MostDescriptors = 768;

    private readonly UnixSocket _listening;
    private readonly string _path;
    private readonly TimeSpan _patience;
    private readonly uint _user;
    private readonly Dictionary<string, HeldEntry> _entries = new(MostEntries, StringComparer.Ordinal);
    private readonly List<HoldClient> _clients = new(MostClients);
    private readonly byte[] _packet = new byte[HoldPacket.MostBytes + 1];
    private readonly FileDescriptor?[] _received = new FileDescriptor?[HoldPacket.MostDescriptors];
    private int _descriptors;

    private Holder(UnixSocket listening, string path, TimeSpan patience, uint user)
    {
        _listening = listening;
        _path = path;
        _patience = patience;
        _user = user;
    }

    /// <summary>How long a connection that has nothing may be silent.</summary>
    internal static TimeSpan Patience { get; } = TimeSpan.FromSeconds(10);

    /// <summary>Begins to listen.</summary>
    /// <param name="path">The socket's path. A socket left by a process that died is replaced; nothing else is.</param>
    /// <param name="patience">How long a connection that has nothing may be silent; null for <see cref="Patience"/>.</param>
    /// <returns>The holder, which the caller disposes.</returns>
    /// <exception cref="CommandException">The path is taken or can't be made.</exception>
    internal static Holder Listen(string path, TimeSpan? patience = null)
    {
        Clear(path);
        UnixSocket? listening = null;
        try
        {
            listening = UnixSocket.Listen(path, UnixSocketType.SequencedPackets);
            File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite);

            // Who made this process is the only user whose connections it takes, also of the moment before the mode was set.
            (UnixSocket mine, UnixSocket other) = UnixSocket.CreatePair(UnixSocketType.SequencedPackets);
            using (mine)
            using (other)
            {
                return new Holder(listening, path, patience ?? Patience, mine.GetPeer().UserId);
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            listening?.Dispose();
            throw new CommandException($"Could not make the holder's socket {path}: {e.Message} Choose a path in a directory that exists and that you may write, such as /tmp/holder.sock.");
        }
    }

    /// <summary>Serves until it is told to end.</summary>
    /// <param name="end">Readable when it is to end.</param>
    internal void Run(FileDescriptor end)
    {
        const int First = 2;
        Poll? poll = null;
        while (true)
        {
            poll ??= new Poll([end, _listening.Descriptor, .. _clients.Select(static client => client.Socket.Descriptor)]);
            _ = poll.Wait(Timeout());
            if (poll.IsReadable(0))
            {
                return;
            }

            int count = _clients.Count;
            for (int i = count - 1; i >= 0; i--)
            {
                HoldClient client = _clients[i];
                bool stays = poll.IsReadable(First + i)
                    ? TryServe(client)
                    : client.Entries > 0 || Environment.TickCount64 - client.Spoke < _patience.TotalMilliseconds;
                if (!stays)
                {
                    _clients.RemoveAt(i);
                    Part(client);
                }
            }

            if (poll.IsReadable(1))
            {
                Accept();
            }

            if (_clients.Count != count || poll.IsReadable(1))
            {
                poll = null;
            }
        }
    }

    /// <summary>Closes all connections and all that is kept, and removes the socket.</summary>
    public void Dispose()
    {
        File.Delete(_path);
        _listening.Dispose();
        _clients.ForEach(static client => client.Dispose());
        foreach (HeldEntry entry in _entries.Values)
        {
            entry.Dispose();
        }
    }

    private static void Clear(string path)
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
            throw new CommandException($"Could not make the holder's socket {path}: a file is there that is no socket of a holder. It was left as it is; choose another path, or remove it.");
        }

        throw new CommandException($"Could not make the holder's socket {path}: a holder listens there already. Use that one, or choose another path.");
    }

    /// <returns>Milliseconds until the first connection has been silent for too long; -1 if none can be.</returns>
    private int Timeout()
    {
        long now = Environment.TickCount64;
        long timeout = -1;
        foreach (HoldClient client in _clients)
        {
            if (client.Entries == 0)
            {
                long left = Math.Max(0, client.Spoke + (long)_patience.TotalMilliseconds - now);
                timeout = timeout < 0 ? left : Math.Min(timeout, left);
            }
        }

        return (int)timeout;
    }

    private void Accept()
    {
        try
        {
            UnixSocket socket = _listening.Accept();
            uint user = socket.GetPeer().UserId;
            if (_clients.Count < MostClients && (user == _user || user == 0))
            {
                _clients.Add(new HoldClient(socket, Environment.TickCount64));
            }
            else
            {
                socket.Dispose();
            }
        }
        catch (LinuxException)
        {
            // Too many open files: whoever waits is taken when there are fewer, and the processor is not kept busy until then.
            Thread.Sleep(10);
        }
    }

    /// <summary>A connection has ended: what it had and let go of may be taken, and the rest is gone.</summary>
    private void Part(HoldClient client)
    {
        client.Dispose();
        foreach ((string name, HeldEntry entry) in _entries.Where(entry => entry.Value.Owner == client).ToArray())
        {
            entry.Owner = null;
            if (entry.Stage != HoldStage.LetGo)
            {
                Remove(name, entry);
            }
        }
    }

    private void Remove(string name, HeldEntry entry)
    {
        _ = _entries.Remove(name);
        _descriptors -= entry.Descriptors.Length;
        entry.Dispose();
    }

    /// <returns>Whether the connection goes on.</returns>
    private bool TryServe(HoldClient client)
    {
        int length;
        int count;
        try
        {
            length = client.Socket.Receive(_packet, _received, out count);
        }
        catch (LinuxException)
        {
            return false;
        }

        if (length == 0)
        {
            return false;
        }

        client.Spoke = Environment.TickCount64;
        FileDescriptor[] descriptors = [.. _received.AsSpan(0, count)!];
        HeldEntry? handedOut = null;
        HoldAnswer answer = HoldPacket.TryRead(_packet.AsSpan(0, length), out HoldQuestion question) && (count == 0 || question.Verb == HoldVerb.Put)
            ? Obey(client, question, descriptors, out handedOut)
            : HoldAnswer.Malformed;
        if (answer != HoldAnswer.Done || question.Verb != HoldVerb.Put)
        {
            Array.ForEach(descriptors, static descriptor => descriptor.Dispose());
        }

        byte[] header = [HoldPacket.Version, (byte)answer, (byte)(handedOut?.Stage ?? default), 0];
        try
        {
            return client.Socket.TrySendPacket(handedOut is null ? header : [.. header, .. handedOut.Blob], handedOut?.Descriptors) && answer != HoldAnswer.Malformed;
        }
        catch (LinuxException)
        {
            return false;
        }
    }

    private HoldAnswer Obey(HoldClient client, HoldQuestion question, FileDescriptor[] descriptors, out HeldEntry? handedOut)
    {
        handedOut = null;
        bool exists = _entries.TryGetValue(question.Name, out HeldEntry? entry);
        if (question.Verb == HoldVerb.Put && !exists)
        {
            if (_entries.Count == MostEntries || _descriptors + descriptors.Length > MostDescriptors)
            {
                return HoldAnswer.Full;
            }

            entry = new HeldEntry(question.Secret.ToArray()) { Stage = question.Stage, Owner = client };
            _entries.Add(question.Name, entry);
            client.Entries++;
            Fill(entry, question, descriptors);
            return HoldAnswer.Done;
        }

        if (!exists || !entry!.Knows(question.Secret))
        {
            return question.Verb == HoldVerb.Put ? HoldAnswer.Taken : HoldAnswer.Unknown;
        }

        if (entry.Owner is { } owner && owner != client)
        {
            return HoldAnswer.Taken;
        }

        if (question.Verb == HoldVerb.Take)
        {
            client.Entries += entry.Owner is null ? 1 : 0;
            entry.Owner = client;
            handedOut = entry;
            return HoldAnswer.Done;
        }

        if (entry.Owner is null)
        {
            return HoldAnswer.NotTaken;
        }

        if (question.Verb == HoldVerb.Drop)
        {
            client.Entries--;
            Remove(question.Name, entry);
            return HoldAnswer.Done;
        }

        if (question.Stage < entry.Stage)
        {
            return HoldAnswer.Backwards;
        }

        if (question.Verb == HoldVerb.Put)
        {
            if (_descriptors - entry.Descriptors.Length + descriptors.Length > MostDescriptors)
            {
                return HoldAnswer.Full;
            }

            Fill(entry, question, descriptors);
        }

        entry.Stage = question.Stage;
        return HoldAnswer.Done;
    }

    private void Fill(HeldEntry entry, HoldQuestion question, FileDescriptor[] descriptors)
    {
        _descriptors += descriptors.Length - entry.Descriptors.Length;
        entry.Fill(question.Blob.ToArray(), descriptors);
    }
}
