using Pageferry.Linux;
using Pageferry.Memory;
using Pageferry.Migration;
using Pageferry.Vmm;

namespace Pageferry.Cli;

/// <summary>
/// A guest in this process whose memory an engine in another one fills, and all that the engine can be given anew: the guest's file, its userfaultfd and its record. As
/// long as they are open here, a dead engine is a stall and never a page of zeros.
/// </summary>
internal sealed class SharedGuest : IDisposable
{
    private readonly MemoryFile _recordFile;
    private readonly NativeBuffer _buffer;
    private readonly GuestViewShare _share;
    private bool _isStarted;
    private bool _isUnregistered;

    private SharedGuest(MemoryFile recordFile, NativeBuffer buffer, ArrivalRecord record, HostedGuest hosted, GuestViewShare share)
    {
        _recordFile = recordFile;
        _buffer = buffer;
        _share = share;
        Record = record;
        Hosted = hosted;
    }

    /// <summary>The machine.</summary>
    internal HostedGuest Hosted { get; }

    /// <summary>How far its arrival is.</summary>
    internal ArrivalRecord Record { get; }

    /// <summary>Where its memory is.</summary>
    internal EngineView View => new(_share.Address, Hosted.Machine.Memory.Backing);

    /// <summary>Whether the vCPUs were let run.</summary>
    internal bool IsStarted => _isStarted;

    /// <summary>Makes room for a guest.</summary>
    /// <param name="recordFile">The record that the engine has begun; owned by the result.</param>
    /// <param name="options">How to take a guest in.</param>
    /// <returns>The guest, which the caller disposes.</returns>
    internal static SharedGuest Prepare(MemoryFile recordFile, ArrivalOptions options)
    {
        NativeBuffer? buffer = null;
        IMachine? machine = null;
        try
        {
            buffer = new NativeBuffer(recordFile);
            var record = ArrivalRecord.Open(buffer);
            MigrationLayout layout = record.Layout;
            GuestBacking backing = options.Backing ?? layout.Backing;
            if (EngineWord.WhyNotSeparate(backing) is { } refusal)
            {
                throw new CommandException(refusal);
            }

            machine = MachineFactory.CreateEmpty(MachineKind.Parse(layout.MachineKind), MachineMemory.Create(layout.Regions, backing), options.DirtyTracking);
            machine.Memory.Register();
            return new SharedGuest(recordFile, buffer, record, new HostedGuest(layout.GuestId, machine), machine.Memory.Share());
        }
        catch
        {
            machine?.Dispose();
            buffer?.Dispose();
            recordFile.Dispose();
            throw;
        }
    }

    /// <summary>What goes along with <see cref="View"/>: duplicates, of which the last is the record's.</summary>
    internal FileDescriptor[] Duplicate() => [_share.File.Duplicate(), _share.Userfaultfd.Duplicate(), _recordFile.Descriptor.Duplicate()];

    /// <summary>Loads the machine state.</summary>
    /// <param name="file">A file that holds it.</param>
    /// <param name="length">How many bytes it has.</param>
    internal void Load(FileDescriptor file, ulong length)
    {
        Hosted.Machine.LoadState(BytesFile.Read(file, length, MigrationSource.MostStateBytes, "the machine state"));
    }

    /// <summary>Stops the guest, which was taken out, and saves what is here of it.</summary>
    internal GuestHalf TakeHalf()
    {
        Hosted.Pause.Hold();
        return Record.Half(Hosted.Machine.SaveState());
    }

    /// <summary>Lets the vCPUs run, if they weren't let before.</summary>
    /// <returns>Whether that was now.</returns>
    internal bool TryStart(bool isPaused, Action executed)
    {
        if (_isStarted)
        {
            return false;
        }

        _isStarted = true;
        Hosted.Start(isPaused, executed);
        return true;
    }

    /// <summary>Lets the guest go on without userfaults, if it wasn't let before.</summary>
    internal void Unregister()
    {
        if (!_isUnregistered)
        {
            Hosted.Machine.Memory.Unregister();
            _isUnregistered = true;
        }
    }

    /// <summary>Nothing more is shared: the guest has arrived.</summary>
    internal void EndSharing()
    {
        _share.Dispose();
        _buffer.Dispose();
        _recordFile.Dispose();
    }

    /// <summary>Gives all back: the guest did not arrive.</summary>
    public void Dispose()
    {
        // The view is unmapped first: as long as it is there, the userfaultfd stays open.
        Hosted.Dispose();
        EndSharing();
    }
}
