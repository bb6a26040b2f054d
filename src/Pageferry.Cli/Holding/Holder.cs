using System.Globalization;
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

    /// <summary>The most descriptors that a holder stores: those of its records, and of each the file that says what it is.</summary>
    internal const int MostStored = MostDescriptors + MostEntries;

    private readonly UnixSocket _listening;
    private readonly string _path;
    private readonly TimeSpan _patience;
    private readonly uint _user;
    private readonly Dictionary<string, HeldEntry> _entries = new(MostEntries, StringComparer.Ordinal);
    private readonly List<HoldClient> _clients = new(MostClients);
    private readonly ServiceManager? _manager;
    private readonly byte[] _packet = new byte[HoldPacket.MostBytes + 1];
    private readonly FileDescriptor?[] _received = new FileDescriptor?[HoldPacket.MostDescriptors];
    private int _descriptors;

    private Holder(UnixSocket listening, string path, TimeSpan patience, uint user, ServiceManager? manager)
    {
        _listening = listening;
        _path = path;
        _patience = patience;
        _user = user;
        _manager = manager;
    }

    /// <summary>How long a connection that has nothing may be silent.</summary>
    internal static TimeSpan Patience { get; } = TimeSpan.FromSeconds(10);

    /// <summary>Begins to listen.</summary>
    /// <param name="path">The socket's path. A socket left by a process that died is replaced; nothing else is.</param>
    /// <param name="patience">How long a connection that has nothing may be silent; null for <see cref="Patience"/>.</param>
    /// <param name="manager">Stores what is kept, for the holder that comes after this one; null if nobody does.</param>
    /// <returns>The holder, which the caller disposes.</returns>
    /// <exception cref="CommandException">The path is taken or can't be made.</exception>
    internal static Holder Listen(string path, TimeSpan? patience = null, ServiceManager? manager = null)
    {
        // The user of this process is the only one whose connections it takes, also of the moment before the socket's mode was set.
        uint user = UnixPeer.OfThisProcess().UserId;
        return new Holder(PacketListener.Listen(path, "a holder"), path, patience ?? Patience, user, manager);
    }

    /// <summary>Takes back what a holder before this one had stored. Called before <see cref="Run"/>.</summary>
    /// <param name="stored">Descriptors by their names; owned by the holder.</param>
    /// <returns>For each record that is there and was not taken back, why. It is left in the store, for a build that knows it.</returns>
    internal List<string> TakeBack(IEnumerable<(string Name, FileDescriptor Descriptor)> stored)
    {
        var refused = new List<string>();
        foreach (IGrouping<string, (string Name, FileDescriptor Descriptor)> of in stored.GroupBy(static one => RecordOf(one.Name), StringComparer.Ordinal))
        {
            var parts = new Dictionary<string, FileDescriptor>(StringComparer.Ordinal);
            bool isDouble = false;
            foreach ((string part, FileDescriptor descriptor) in of)
            {
                if (!parts.TryAdd(part, descriptor))
                {
                    isDouble = true;
                    descriptor.Dispose();
                }
            }

            try
            {
                TakeBack(of.Key, isDouble ? throw new InvalidDataException("more than one is stored under that name.") : parts);
            }
            catch (InvalidDataException e)
            {
                refused.Add($"'{of.Key}' was not taken back: {e.Message}");
                foreach (FileDescriptor descriptor in parts.Values)
                {
                    descriptor.Dispose();
                }
            }
        }

        return refused;
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

    /// <summary>Closes all connections and all that is kept, and removes the socket. What is stored stays stored.</summary>
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

    /// <summary>What a descriptor is stored as: the record's name, and its position in it; 0 is the record's file.</summary>
    private static string PartOf(string name, int position) => string.Create(CultureInfo.InvariantCulture, $"{name}.{position}");

    private static string RecordOf(string part) => part[..Math.Max(0, part.LastIndexOf('.'))];

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
                // Who has a record may have burnt it, and have no connection: that of a holder before this one.
                Forget();
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
        foreach (HeldEntry entry in _entries.Values)
        {
            entry.Owner = entry.Owner == client ? null : entry.Owner;
        }

        Forget();
    }

    /// <summary>Forgets what no connection has and nobody may get.</summary>
    private void Forget()
    {
        foreach (HeldEntry entry in _entries.Values.Where(static entry => entry.Owner is null && entry.File.Stage != HoldStage.LetGo).ToArray())
        {
            Remove(entry);
        }
    }

    private void Remove(HeldEntry entry)
    {
        // First, so that it is not taken back if the store still has it.
        entry.File.Advance(HoldStage.Burnt);
        RemoveStored(entry.File);
        _ = _entries.Remove(entry.File.Name);
        _descriptors -= entry.Descriptors.Length;
        entry.Dispose();
    }

    private void RemoveStored(HeldFile file)
    {
        for (int part = file.Descriptors; part >= 0; part--)
        {
            _manager?.Remove(PartOf(file.Name, part));
        }
    }

    private void TakeBack(string name, Dictionary<string, FileDescriptor> parts)
    {
        if (!parts.Remove(PartOf(name, 0), out FileDescriptor? first))
        {
            throw new InvalidDataException("the file that says what it is is missing.");
        }

        HeldFile? file = null;
        try
        {
            file = HeldFile.Open(first);
            if (file.Name != name)
            {
                throw new InvalidDataException($"it is '{file.Name}'.");
            }

            if (file.Stage != HoldStage.LetGo)
            {
                // As when its connection ends.
                file.Advance(HoldStage.Burnt);
                RemoveStored(file);
                file.Dispose();
                foreach (FileDescriptor descriptor in parts.Values)
                {
                    descriptor.Dispose();
                }

                return;
            }

            if (parts.Count != file.Descriptors || !Enumerable.Range(1, file.Descriptors).All(i => parts.ContainsKey(PartOf(name, i))))
            {
                throw new InvalidDataException($"it has {file.Descriptors} descriptors, and {parts.Count} are there.");
            }

            if (_entries.Count == MostEntries || _descriptors + file.Descriptors > MostDescriptors)
            {
                throw new InvalidDataException("there is no room for it.");
            }
        }
        catch
        {
            file?.Dispose();
            first.Dispose();
            throw;
        }

        _entries.Add(name, new HeldEntry(file, [.. Enumerable.Range(1, file.Descriptors).Select(i => parts[PartOf(name, i)])]));
        _descriptors += file.Descriptors;
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
        FileDescriptor? claim = null;
        HoldAnswer answer = HoldAnswer.Malformed;
        if (HoldPacket.TryRead(_packet.AsSpan(0, length), out HoldQuestion question) && (count == 0 || question.Verb == HoldVerb.Put))
        {
            try
            {
                answer = Obey(client, question, descriptors, out handedOut, out claim);
            }
            catch (IOException)
            {
                // Too many open files, or no memory.
                answer = HoldAnswer.Full;
            }
        }

        if (answer != HoldAnswer.Done || question.Verb != HoldVerb.Put)
        {
            Array.ForEach(descriptors, static descriptor => descriptor.Dispose());
        }

        byte[] header = [HoldPacket.Version, (byte)answer, (byte)(handedOut is null ? default : HoldStage.LetGo), 0];
        using (claim)
        {
            try
            {
                return client.Socket.TrySendPacket(handedOut is null ? header : [.. header, .. handedOut.File.ReadBlob()], [.. handedOut?.Descriptors ?? [], .. claim is null ? [] : new[] { claim }])
                    && answer != HoldAnswer.Malformed;
            }
            catch (LinuxException failure)
            {
                // Who did not wait for the answer may have asked for more, which is done too.
                return failure.Errno == Errno.EPIPE;
            }
        }
    }

    private HoldAnswer Obey(HoldClient client, HoldQuestion question, FileDescriptor[] descriptors, out HeldEntry? handedOut, out FileDescriptor? claim)
    {
        handedOut = null;
        claim = null;
        bool exists = _entries.TryGetValue(question.Name, out HeldEntry? entry);
        if (question.Verb == HoldVerb.Put)
        {
            return exists && (entry!.Owner != client || !entry.Knows(question.Secret)) ? HoldAnswer.Taken : Put(client, question, descriptors, entry, out claim);
        }

        if (!exists || !entry!.Knows(question.Secret))
        {
            return HoldAnswer.Unknown;
        }

        if (entry.Owner is { } owner && (owner != client || question.Verb == HoldVerb.Take))
        {
            return HoldAnswer.Taken;
        }

        HoldStage stage = entry.File.Stage;
        if (entry.Owner is null && stage != HoldStage.LetGo)
        {
            Remove(entry);
            return HoldAnswer.Unknown;
        }

        if (question.Verb == HoldVerb.Take)
        {
            claim = entry.File.TryClaim();
            if (claim is null)
            {
                return HoldAnswer.Taken;
            }

            client.Entries++;
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
            Remove(entry);
            return HoldAnswer.Done;
        }

        if (question.Stage < stage)
        {
            return HoldAnswer.Backwards;
        }

        entry.File.Advance(question.Stage);
        return HoldAnswer.Done;
    }

    private HoldAnswer Put(HoldClient client, HoldQuestion question, FileDescriptor[] descriptors, HeldEntry? replaced, out FileDescriptor? claim)
    {
        claim = null;
        if (replaced is null ? _entries.Count == MostEntries : question.Stage < replaced.File.Stage)
        {
            return replaced is null ? HoldAnswer.Full : HoldAnswer.Backwards;
        }

        if (_descriptors - (replaced?.Descriptors.Length ?? 0) + descriptors.Length > MostDescriptors)
        {
            return HoldAnswer.Full;
        }

        if (replaced is not null && _manager is not null)
        {
            // The store has a descriptor once, under one name: there would be a moment in which it has neither of the two records whole.
            return HoldAnswer.NotReplaced;
        }

        string name = question.Name;
        var file = HeldFile.Create(name, question.Secret, question.Blob, descriptors.Length);
        try
        {
            file.Advance(question.Stage);
            claim = file.TryClaim();
        }
        catch (IOException)
        {
            file.Dispose();
            throw;
        }

        if (_manager?.TryStore([(PartOf(name, 0), file.Descriptor), .. descriptors.Select((descriptor, i) => (PartOf(name, i + 1), descriptor))]) == false)
        {
            claim!.Dispose();
            claim = null;
            file.Dispose();
            return HoldAnswer.NotStored;
        }

        if (replaced is not null)
        {
            client.Entries--;
            Remove(replaced);
        }

        _entries.Add(name, new HeldEntry(file, descriptors) { Owner = client });
        _descriptors += descriptors.Length;
        client.Entries++;
        return HoldAnswer.Done;
    }
}
