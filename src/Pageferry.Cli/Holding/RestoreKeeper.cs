using System.Text.Json;
using Pageferry.Criu;
using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary>Keeps at a holder what a lazy restore is served from.</summary>
internal sealed class RestoreKeeper : IRestoreKeeper, IDisposable
{
    /// <summary>What names begin with, so that nobody takes it for a guest.</summary>
    internal const string NamePrefix = "lazy-pages-";

    private readonly HolderClient _client;
    private readonly string _name;
    private readonly byte[] _secret;
    private readonly string _workDirectory;
    private bool _isKept;

    /// <summary>Makes a keeper for a restore that is about to begin.</summary>
    /// <param name="path">The holder's socket.</param>
    /// <param name="workDirectory">The daemon's work directory.</param>
    /// <exception cref="HolderException">There is no holder.</exception>
    internal RestoreKeeper(string path, string workDirectory)
        : this(HolderClient.Connect(path), $"{NamePrefix}{Guid.NewGuid():N}", HolderClient.CreateSecret(), workDirectory) => _isKept = false;

    /// <summary>Takes over what a daemon has left.</summary>
    /// <param name="client">The connection that took it; owned by the keeper.</param>
    /// <param name="name">What it is kept as.</param>
    /// <param name="secret">Its secret.</param>
    /// <param name="workDirectory">The daemon's work directory.</param>
    internal RestoreKeeper(HolderClient client, string name, byte[] secret, string workDirectory)
    {
        _client = client;
        _name = name;
        _secret = secret;
        _workDirectory = workDirectory;
        _isKept = true;
    }

    /// <inheritdoc/>
    public void Keep(ReadOnlySpan<byte> record, IReadOnlyList<FileDescriptor> descriptors)
    {
        if (descriptors.Count > HoldPacket.MostDescriptors)
        {
            throw new IOException($"The holder at {_client.Path} keeps {HoldPacket.MostDescriptors} descriptors of a restore, two for each process; {descriptors.Count} were to be kept.");
        }

        var held = new HeldRestore { Version = HeldRestore.CurrentVersion, WorkDirectory = _workDirectory, Record = record.ToArray() };
        byte[] blob = JsonSerializer.SerializeToUtf8Bytes(held, CliJson.Default.HeldRestore);
        if (!_isKept)
        {
            // Before there is anything to open with it: without it nobody could have that.
            HoldSecret.Write(_client.Path, _name, _secret);
            _isKept = true;

            // A holder that can't replace a record is found out before there is a restore.
            _client.Put(_name, _secret, HoldStage.LetGo, blob, [.. descriptors]);
        }

        _client.Put(_name, _secret, HoldStage.LetGo, blob, [.. descriptors]);
    }

    /// <inheritdoc/>
    public void Drop()
    {
        if (_isKept)
        {
            try
            {
                _client.Drop(_name, _secret);
            }
            finally
            {
                // A holder that stands still may go on without: what it keeps then is to be had with the secret.
                if (!_client.IsOwed)
                {
                    HoldSecret.Remove(_client.Path, _name);
                }
            }
        }
    }

    /// <summary>Closes the connection: what is kept still may be taken by another process then.</summary>
    public void Dispose() => _client.Dispose();
}
