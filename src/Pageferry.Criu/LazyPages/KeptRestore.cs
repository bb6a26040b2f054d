using Microsoft.Extensions.Logging;
using Pageferry.Linux;
using Pageferry.Memory;

namespace Pageferry.Criu;

/// <summary>
/// What a restore is served from, as it is kept: sockets as long as processes are handed over, and of each process its userfaultfd and its record. A process is kept before it is
/// served, and no longer when its userfaultfd is about to be closed: kept open and read by nobody, it would have the process wait whenever it changes its address space.
/// </summary>
/// <param name="keeper">Keeps it.</param>
/// <param name="logger">Hears what is not kept any more.</param>
internal sealed class KeptRestore(IRestoreKeeper keeper, ILogger logger) : IDisposable
{
    /// <summary>The form of the record: this, and how many of the descriptors are sockets.</summary>
    private const byte Version = 1;

    private readonly Lock _changing = new();
    private readonly List<(ForeignRecord Record, FileDescriptor Userfaultfd)> _processes = [];
    private FileDescriptor[] _sockets = [];
    private bool _isRestored;
    private bool _isDropped;
    private string? _told;

    /// <summary>Reads a record.</summary>
    /// <param name="record">The record.</param>
    /// <param name="descriptors">How many descriptors came with it.</param>
    /// <returns>How many of them are sockets; two for each process follow.</returns>
    /// <exception cref="InvalidDataException">It is none, or of a form that is unknown here.</exception>
    internal static int ReadSockets(ReadOnlySpan<byte> record, int descriptors)
    {
        if (record.Length != 2 || record[0] != Version)
        {
            throw new InvalidDataException($"What is kept of the restore is of a form that this build does not know; it knows version {Version}. Use the build that wrote it.");
        }

        return record[1] <= 2 && record[1] <= descriptors && (descriptors - record[1]) % 2 == 0
            ? record[1]
            : throw new InvalidDataException($"What is kept of the restore is damaged: {record[1]} sockets among {descriptors} descriptors.");
    }

    /// <summary>Keeps the sockets by which processes are handed over.</summary>
    /// <param name="sockets">The one that listens, and the restore's once it is connected.</param>
    /// <exception cref="IOException">They are not kept.</exception>
    internal void KeepSockets(params FileDescriptor[] sockets)
    {
        lock (_changing)
        {
            _sockets = sockets;
            Keep();
        }
    }

    /// <summary>All processes are handed over: what isn't kept from now on is served nevertheless, since they run.</summary>
    internal void EndHandover()
    {
        lock (_changing)
        {
            _isRestored = true;
            _sockets = [];
            Keep();
        }
    }

    /// <summary>Keeps a process.</summary>
    /// <param name="record">Its record.</param>
    /// <param name="userfaultfd">Its userfaultfd.</param>
    /// <exception cref="IOException">It is not kept, and does not run yet.</exception>
    internal void Add(ForeignRecord record, Userfaultfd userfaultfd)
    {
        lock (_changing)
        {
            _processes.Add((record, userfaultfd.Descriptor.Duplicate()));
            if (!Keep())
            {
                _ = Forget(record);
            }
        }
    }

    /// <summary>Takes up a process that is kept already.</summary>
    internal void Resume(ForeignRecord record, Userfaultfd userfaultfd)
    {
        lock (_changing)
        {
            _processes.Add((record, userfaultfd.Descriptor.Duplicate()));
        }
    }

    /// <summary>Does not keep a process any more, whose userfaultfd is closed next.</summary>
    internal void Remove(ForeignRecord record)
    {
        lock (_changing)
        {
            if (Forget(record))
            {
                _ = Keep();
            }
        }
    }

    /// <summary>Nothing is left to keep.</summary>
    public void Dispose()
    {
        lock (_changing)
        {
            _isDropped = true;
            try
            {
                keeper.Drop();
            }
            catch (IOException failure)
            {
                Tell(failure);
            }

            _processes.ForEach(static process => process.Userfaultfd.Dispose());
            _processes.Clear();
        }
    }

    private bool Keep()
    {
        if (_isDropped)
        {
            return false;
        }

        try
        {
            keeper.Keep([Version, (byte)_sockets.Length], [.. _sockets, .. _processes.SelectMany(static process => (FileDescriptor[])[process.Userfaultfd, process.Record.Descriptor])]);
            return true;
        }
        catch (IOException failure) when (_isRestored)
        {
            Tell(failure);
            return false;
        }
    }

    private bool Forget(ForeignRecord record)
    {
        int at = _processes.FindIndex(process => process.Record == record);
        if (at >= 0)
        {
            _processes[at].Userfaultfd.Dispose();
            _processes.RemoveAt(at);
        }

        return at >= 0;
    }

    /// <summary>Says once what is not kept.</summary>
    private void Tell(IOException failure)
    {
        if (_told != failure.Message)
        {
            _told = failure.Message;
            LazyLog.NotKept(logger, failure.Message);
        }
    }
}
