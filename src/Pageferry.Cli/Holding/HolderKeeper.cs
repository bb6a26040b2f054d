using System.Text.Json;
using Microsoft.Win32.SafeHandles;
using Pageferry.Linux;
using Pageferry.Memory;
using Pageferry.Migration;

namespace Pageferry.Cli;

/// <summary>Keeps what a source serves from at a holder: the file of the guest's memory, one of its machine state, and how to go on.</summary>
internal sealed class HolderKeeper : ISourceKeeper, IDisposable
{
    private readonly string _path;
    private readonly GuestMemory _memory;
    private readonly Func<SourceRecord, HeldSource> _describe;
    private readonly string _name;
    private readonly byte[] _secret;
    private HolderClient? _client;
    private int _holder;
    private bool _isLetGo;

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

        _path = path;
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
        _path = client.Path;
        _memory = memory;
        _describe = static _ => throw new InvalidOperationException("What is kept already is not offered again.");
        _name = name;
        _secret = secret;
        _client = client;
        _holder = client.HolderPid;
        _isLetGo = true;
    }

    /// <inheritdoc/>
    public void Offer(SourceRecord record)
    {
        byte[] blob = JsonSerializer.SerializeToUtf8Bytes(_describe(record), CliJson.Default.HeldSource);
        if (blob.Length > HoldPacket.MostBlob)
        {
            throw new IOException($"What the holder is to keep beside the memory has {blob.Length} bytes, of {HoldPacket.MostBlob} that it takes. Use shorter paths for certificates.");
        }

        _client = HolderClient.Connect(_path);
        _holder = _client.HolderPid;
        using MemoryFile state = WriteState(record.State.Span);
        using FileDescriptor memory = _memory.DuplicateFile();
        _client.Put(_name, _secret, HoldStage.Offered, blob, memory, state.Descriptor);
        HoldSecret.Write(_path, _name, _secret);
    }

    /// <inheritdoc/>
    public void LetGo()
    {
        _isLetGo = true;
        _client!.Advance(_name, _secret, HoldStage.LetGo);
    }

    /// <inheritdoc/>
    public void Burn()
    {
        // What was never let go of goes with its connection, and nobody gets it before.
        if (_isLetGo && !TryBurn())
        {
            throw new IOException($"The holder at {_path} (process {_holder}) does not say that nobody can serve the guest any more. Have it go on, or end it.");
        }

        End();
    }

    /// <inheritdoc/>
    public void Drop()
    {
        _client!.Drop(_name, _secret);
        End();
    }

    /// <summary>Closes the connection: what was let go of may then be taken by another process.</summary>
    public void Dispose() => _client?.Dispose();

    private static MemoryFile WriteState(ReadOnlySpan<byte> state)
    {
        var file = MemoryFile.Create("machine-state", (ulong)state.Length);
        using var handle = new SafeFileHandle(file.Descriptor.Number, ownsHandle: false);
        RandomAccess.Write(handle, state, fileOffset: 0);
        return file;
    }

    private void End()
    {
        Dispose();
        HoldSecret.Remove(_path, _name);
    }

    /// <returns>Whether nobody can serve the guest any more: the holder said so, or is gone with all that it kept.</returns>
    private bool TryBurn()
    {
        try
        {
            _client!.Advance(_name, _secret, HoldStage.Burnt);
            return true;
        }
        catch (HolderException)
        {
            // This connection says nothing any more; another one may.
            _client!.Dispose();
        }

        try
        {
            _client = HolderClient.Connect(_path);
            if (_client.HolderPid == _holder)
            {
                Array.ForEach(_client.Take(_name, _secret).Descriptors, static descriptor => descriptor.Dispose());
                _client.Advance(_name, _secret, HoldStage.Burnt);
                return true;
            }
        }
        catch (HolderException e) when (e.Answer == HoldAnswer.Unknown)
        {
            return true;
        }
        catch (HolderException)
        {
            // It is not there, or does not answer.
        }

        return HasEnded(_holder);
    }

    /// <summary>Whether a process has certainly ended: its descriptors are closed then.</summary>
    private static bool HasEnded(int pid)
    {
        try
        {
            return pid > 0 && (!Directory.Exists($"/proc/{pid}") || File.ReadLines($"/proc/{pid}/status").Any(static line => line.StartsWith("State:\tZ", StringComparison.Ordinal)));
        }
        catch (IOException)
        {
            // It ended while it was looked at; the next look tells.
            return false;
        }
    }
}
