using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary>
/// A connection to a holder. What is put or taken through it is its, and nobody else's, until it is disposed or its process ends, be the holder's process another one by then:
/// what was let go of may then be taken by another, and the rest is gone. From any thread.
/// </summary>
internal sealed class HolderClient : IDisposable
{
    /// <summary>How long an answer may take: the holder waits for nobody.</summary>
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(10);

    /// <summary>The most questions that are not answered: a holder that stands still has them all when it goes on.</summary>
    private const int MostOwed = 16;

    private readonly UnixSocket _socket;
    private readonly Lock _asking = new();
    private readonly byte[] _packet = new byte[HoldPacket.MostBytes];
    private readonly FileDescriptor?[] _descriptors = new FileDescriptor?[HoldPacket.MostDescriptors + 1];

    /// <summary>Of each record that this connection has, the opening of its file that makes it so (<see cref="HeldFile"/>).</summary>
    private readonly Dictionary<string, FileDescriptor> _claims = new(StringComparer.Ordinal);

    /// <summary>Questions whose answers have not come, in their order.</summary>
    private readonly Queue<(HoldVerb Verb, string Name)> _owed = new();
    private bool _isLost;

    private HolderClient(UnixSocket socket, string path)
    {
        _socket = socket;
        Path = path;
    }

    /// <summary>Where the holder listens.</summary>
    internal string Path { get; }

    /// <summary>Whether the holder's process that this connects to has ended.</summary>
    internal bool IsEnded => new Poll(_socket.Descriptor).Wait(0) > 0;

    /// <summary>Whether the holder has not answered in time what it may still do.</summary>
    internal bool IsOwed
    {
        get
        {
            lock (_asking)
            {
                return _owed.Count > 0;
            }
        }
    }

    /// <summary>Connects.</summary>
    /// <param name="path">Where the holder listens.</param>
    /// <returns>The connection, which the caller disposes.</returns>
    /// <exception cref="HolderException">Nobody listens there.</exception>
    internal static HolderClient Connect(string path)
    {
        try
        {
            return new HolderClient(UnixSocket.Connect(path, UnixSocketType.SequencedPackets), path);
        }
        catch (LinuxException e)
        {
            throw new HolderException(answer: null, $"Could not reach a holder at {path}: {e.Message} Start one first: pageferry hold --socket {path}", e);
        }
    }

    /// <summary>Makes a secret that nobody can guess.</summary>
    internal static byte[] CreateSecret()
    {
        // From the kernel's generator, as those of RandomNumberGenerator are; but that needs OpenSSL.
        var secret = new byte[HoldPacket.SecretBytes];
        _ = Guid.NewGuid().TryWriteBytes(secret);
        _ = Guid.NewGuid().TryWriteBytes(secret.AsSpan(secret.Length / 2));
        return secret;
    }

    /// <summary>Has descriptors kept, in place of what this connection had kept there before. When this returns, they are.</summary>
    /// <param name="name">Under which name (<see cref="HoldPacket.IsName"/>).</param>
    /// <param name="secret">What is to prove that somebody may have them: <see cref="HoldPacket.SecretBytes"/> bytes.</param>
    /// <param name="stage">How far they have been let go of.</param>
    /// <param name="blob">What to keep beside them: up to <see cref="HoldPacket.MostBlob"/> bytes.</param>
    /// <param name="descriptors">Up to <see cref="HoldPacket.MostDescriptors"/>, which stay the caller's.</param>
    /// <exception cref="HolderException">They are not, or the holder did not answer.</exception>
    internal void Put(string name, ReadOnlySpan<byte> secret, HoldStage stage, ReadOnlySpan<byte> blob, params ReadOnlySpan<FileDescriptor> descriptors)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(descriptors.Length, HoldPacket.MostDescriptors);
        _ = Ask(HoldVerb.Put, name, secret, stage, blob, descriptors);
    }

    /// <summary>Takes what is kept: from now on it is this connection's.</summary>
    /// <param name="name">Under which name.</param>
    /// <param name="secret">What proves that the caller may.</param>
    /// <returns>It; its descriptors are the caller's to dispose.</returns>
    /// <exception cref="HolderException">Nothing is kept there for that secret, or another connection has it, or the holder did not answer.</exception>
    internal HeldRecord Take(string name, ReadOnlySpan<byte> secret) => Ask(HoldVerb.Take, name, secret, default, [], []);

    /// <summary>Moves to a later stage what this connection has. When this returns, it is there.</summary>
    /// <param name="name">Under which name.</param>
    /// <param name="secret">Its secret.</param>
    /// <param name="stage">Where to; where it is already is no error.</param>
    /// <exception cref="HolderException">It is not, or the holder did not answer, and it may be.</exception>
    internal void Advance(string name, ReadOnlySpan<byte> secret, HoldStage stage) => _ = Ask(HoldVerb.Advance, name, secret, stage, [], []);

    /// <summary>Has nobody get any more what this connection has. That is so when this returns, and needs no holder: none hears of it before it looks.</summary>
    /// <param name="name">Under which name.</param>
    /// <exception cref="IOException">It is not known to be so.</exception>
    internal void Burn(string name)
    {
        lock (_asking)
        {
            HeldFile.Burn(_claims.TryGetValue(name, out FileDescriptor? claim) ? claim : throw new IOException($"Could not burn '{name}': this connection does not have it."));
        }
    }

    /// <summary>Has the holder close and forget what this connection has.</summary>
    /// <param name="name">Under which name.</param>
    /// <param name="secret">Its secret.</param>
    /// <exception cref="HolderException">It did not, or did not answer.</exception>
    internal void Drop(string name, ReadOnlySpan<byte> secret) => _ = Ask(HoldVerb.Drop, name, secret, default, [], []);

    /// <summary>Closes the connection.</summary>
    public void Dispose()
    {
        lock (_asking)
        {
            foreach (FileDescriptor claim in _claims.Values)
            {
                claim.Dispose();
            }

            _claims.Clear();
            _socket.Dispose();
        }
    }

    private HeldRecord Ask(HoldVerb verb, string name, ReadOnlySpan<byte> secret, HoldStage stage, ReadOnlySpan<byte> blob, ReadOnlySpan<FileDescriptor> descriptors)
    {
        byte[] question = HoldPacket.Ask(verb, name, secret, stage, blob);
        string what = $"{verb} '{name}'";
        lock (_asking)
        {
            if (_isLost)
            {
                throw Lost(what, inner: null);
            }

            if (_owed.Count == MostOwed)
            {
                ReceiveLate(what);
            }

            try
            {
                _socket.Send(question, descriptors);
            }
            catch (LinuxException e)
            {
                throw End(what, e);
            }

            _owed.Enqueue((verb, name));
            while (_owed.Count > 1)
            {
                ReceiveLate(what);
            }

            (HoldAnswer answer, HeldRecord record) = Receive(what);
            return answer == HoldAnswer.Done ? record : throw new HolderException(answer, $"The holder at {Path} did not {what}: {Explain(answer)}");
        }
    }

    /// <summary>Receives the answer to an earlier question: who asked it has gone on without.</summary>
    private void ReceiveLate(string what) => Array.ForEach(Receive(what).Record.Descriptors, static descriptor => descriptor.Dispose());

    /// <summary>Receives the answer to the oldest question; under the lock.</summary>
    private (HoldAnswer Answer, HeldRecord Record) Receive(string what)
    {
        int length;
        int count;
        try
        {
            if (new Poll(_socket.Descriptor).Wait((int)s_patience.TotalMilliseconds) == 0)
            {
                throw Lost(what, inner: null);
            }

            length = _socket.Receive(_packet, _descriptors, out count);
        }
        catch (LinuxException e)
        {
            throw End(what, e);
        }

        FileDescriptor[] received = [.. _descriptors.AsSpan(0, count)!];
        (HoldVerb verb, string name) = _owed.Dequeue();
        var answer = (HoldAnswer)_packet[1];
        bool isClaim = answer == HoldAnswer.Done && verb is HoldVerb.Put or HoldVerb.Take;
        if (length < HoldPacket.HeaderBytes || _packet[0] != HoldPacket.Version || !Enum.IsDefined((HoldStage)_packet[2]) || (isClaim && count == 0))
        {
            Array.ForEach(received, static descriptor => descriptor.Dispose());
            throw End(what, inner: null);
        }

        if (answer == HoldAnswer.Done && verb == HoldVerb.Drop && _claims.Remove(name, out FileDescriptor? dropped))
        {
            dropped.Dispose();
        }

        if (isClaim)
        {
            if (_claims.Remove(name, out FileDescriptor? replaced))
            {
                replaced.Dispose();
            }

            _claims.Add(name, received[^1]);
            received = received[..^1];
        }

        return (answer, new HeldRecord((HoldStage)_packet[2], _packet[HoldPacket.HeaderBytes..length], received));
    }

    /// <summary>The holder has ended, or is none: nothing is asked any more.</summary>
    private HolderException End(string what, Exception? inner)
    {
        _isLost = true;
        _owed.Clear();
        return Lost(what, inner);
    }

    private HolderException Lost(string what, Exception? inner) =>
        new(answer: null, $"The holder at {Path} did not answer '{what}': {inner?.Message ?? (_isLost ? "it has ended, or says what this build does not know." : $"it has said nothing for {s_patience.TotalSeconds:F0} s.")} See whether it still runs.", inner);

    private static string Explain(HoldAnswer answer) => answer switch
    {
        HoldAnswer.Unknown => "it keeps nothing under that name with that secret.",
        HoldAnswer.Taken => "another process has it, and lives.",
        HoldAnswer.Full => $"it has no room for more than {Holder.MostEntries} names and {Holder.MostDescriptors} descriptors. Start another one, at another path.",
        HoldAnswer.NotTaken => "this process has not taken it.",
        HoldAnswer.Backwards => "it has gone further already.",
        HoldAnswer.NotStored => "its service manager has no room for it, or does not answer. Give its unit a larger FileDescriptorStoreMax=, or none at all.",
        HoldAnswer.NotReplaced => "its service manager stores what it keeps, and can't store anything else in its place. Start a holder that is no service with a store, at another path.",
        HoldAnswer.Malformed => "it does not know such a question. It may be of another version of pageferry.",
        _ => $"it answered {(byte)answer}, which this build does not know.",
    };
}
