using System.Text.Json;
using Pageferry.Linux;
using Pageferry.Memory;
using Pageferry.Migration;

namespace Pageferry.Cli;

/// <summary>Keeps what a source serves from at a holder: the file of the guest's memory, one of its machine state, and how to go on.</summary>
internal sealed class HolderKeeper : ISourceKeeper, IDisposable
{
    private readonly GuestMemory _memory;
    private readonly Func<SourceRecord, HeldSource> _describe;
    private readonly string _name;
    private readonly byte[] _secret;
    private HolderClient? _client;

    /// <summary>Makes a keeper for a guest that leaves.</summary>
    /// <param name="path">The holder's socket.</param>
    /// <param name="guest">The guest's id.</param>
    /// <param name="memory">Its memory.</param>
    /// <param name="describe">Says how to go on.</param>
    /// <exception cref="CommandException">The memory can't be kept, or there is no holder.</exception>
    internal HolderKeeper(string path, Guid guest, GuestMemory memory, Func<SourceRecord, HeldSource> describe)
    {
        if (memory.Backing is not (GuestBacking.Memfd or GuestBacking.Memfd2M))
        {
            throw new CommandException($"A holder keeps memory that has a file of its own, and {BackingWord.Of(memory.Backing)} memory has none. Leave --holder out, or run the guest with --backing {BackingWord.Memfd}.");
        }

        try
        {
            // It is reached for when the guest stands still: better that it is missed now.
            HolderClient.Connect(path).Dispose();
        }
        catch (HolderException e)
        {
            throw new CommandException(e.Message);
        }

        Path = path;
        _memory = memory;
        _describe = describe;
        _name = $"{guest:N}-{Guid.NewGuid().ToString("N")[..8]}";
        _secret = HolderClient.CreateSecret();
    }

    /// <summary>Takes over what a source has let go of.</summary>
    /// <param name="client">The connection that took it; owned by the keeper.</param>
    /// <param name="name">What it is kept as.</param>
    /// <param name="secret">Its secret.</param>
    /// <param name="memory">The guest's memory.</param>
    internal HolderKeeper(HolderClient client, string name, byte[] secret, GuestMemory memory)
    {
        Path = client.Path;
        _memory = memory;
        _describe = static _ => throw new InvalidOperationException("What is kept already is not offered again.");
        _name = name;
        _secret = secret;
        _client = client;
    }

    /// <summary>The holder's socket.</summary>
    internal string Path { get; }

    /// <summary>Whether the holder that it was put at is there, and keeps it.</summary>
    internal bool IsKept => _client is { IsEnded: false };

    /// <inheritdoc/>
    public void Offer(SourceRecord record)
    {
        byte[] blob = JsonSerializer.SerializeToUtf8Bytes(_describe(record), CliJson.Default.HeldSource);
        if (blob.Length > HoldPacket.MostBlob)
        {
            throw new IOException($"What the holder is to keep beside the memory has {blob.Length} bytes, of {HoldPacket.MostBlob} that it takes. Use shorter paths for certificates.");
        }

        _client = HolderClient.Connect(Path);
        using MemoryFile state = BytesFile.Write("machine-state", record.State.Span);
        using FileDescriptor memory = _memory.DuplicateFile();
        _client.Put(_name, _secret, HoldStage.Offered, blob, memory, state.Descriptor);
        HoldSecret.Write(Path, _name, _secret);
    }

    /// <inheritdoc/>
    public void LetGo() => _client!.Advance(_name, _secret, HoldStage.LetGo);

    /// <inheritdoc/>
    public void Burn()
    {
        // Whatever the holder does meanwhile, be it stopped, gone or started anew: it finds it burnt.
        _client!.Burn(_name);
        End();
    }

    /// <inheritdoc/>
    public void Drop()
    {
        _client!.Burn(_name);
        End();
    }

    /// <summary>Closes the connection: what was let go of may then be taken by another process.</summary>
    public void Dispose() => _client?.Dispose();

    private void End()
    {
        bool isOther = _client!.IsEnded;
        Dispose();
        HoldSecret.Remove(Path, _name);
        if (isOther)
        {
            try
            {
                // A holder that came after the one it was put at knows of no connection that has ended; one that comes has it look.
                HolderClient.Connect(Path).Dispose();
            }
            catch (HolderException)
            {
                // One that comes later looks when it takes back.
            }
        }
    }
}
