using Pageferry.Memory;
using Pageferry.Snapshots;
using Pageferry.Vmm;

namespace Pageferry.Cli;

/// <summary>Makes machines: new ones with a guest, and empty ones for a guest that arrives.</summary>
internal static class MachineFactory
{
    /// <summary>Makes a machine with a guest, ready to start.</summary>
    /// <param name="options">What guest, and how.</param>
    /// <returns>The machine.</returns>
    /// <exception cref="CommandException">It can't be made: the message says why and what to do.</exception>
    internal static IMachine Create(GuestOptions options)
    {
        var configuration = new MachineConfiguration(
            options.Memory.Bytes,
            options.Vcpus,
            BackingWord.Parse(options.Backing),
            options.Privilege is GuestPrivilegeWord.Kernel ? GuestPrivilege.Kernel : GuestPrivilege.User,
            options.Seed,
            options.Passes,
            DirtyTrackingWord.Parse(options.DirtyTracking));
        bool threads = options.Host is HostWord.Threads || (options.Host is HostWord.Auto && KvmExamination.WhyNot() is not null);
        try
        {
            return threads ? ThreadMachine.Create(configuration, options.Guest) : KvmMachine.Create(configuration, GuestImage.Find(options.Guest));
        }
        catch (Exception e) when (e is IOException or InvalidDataException or ArgumentException or NotSupportedException)
        {
            throw new CommandException($"Could not make a guest of '{options.Guest}': {Reason(e)}");
        }
    }

    /// <summary>Makes a machine around memory that is empty yet.</summary>
    /// <param name="kind">What ran the guest where it comes from, and on how many virtual CPUs.</param>
    /// <param name="memory">The memory; owned by the machine.</param>
    /// <param name="dirtyTracking">What is to tell which pages a guest of KVM writes.</param>
    /// <returns>The machine, for a state to be loaded.</returns>
    /// <exception cref="CommandException">This process can't run such a guest.</exception>
    internal static IMachine CreateEmpty(MachineKind kind, GuestMemory memory, DirtyTracking dirtyTracking)
    {
        if (kind.Host is HostWord.Threads)
        {
            return ThreadMachine.Create(memory, kind.Vcpus);
        }

        if (KvmExamination.WhyNot() is { } reason)
        {
            memory.Dispose();
            throw new CommandException($"The guest needs KVM, which can't be used here. {reason}");
        }

        return KvmMachine.Create(memory, kind.Vcpus, dirtyTracking);
    }

    /// <summary>Makes a machine of a guest that was taken out of a migration and made whole.</summary>
    /// <param name="path">Where it is.</param>
    /// <param name="backing">What is to hold its memory; null for what held it before.</param>
    /// <param name="dirtyTracking">What is to tell which pages a guest of KVM writes.</param>
    /// <param name="header">Receives which guest it is.</param>
    /// <returns>The machine, ready to start.</returns>
    /// <exception cref="CommandException">It can't be read, or this process can't run such a guest.</exception>
    internal static IMachine Load(string path, GuestBacking? backing, DirtyTracking dirtyTracking, out SnapshotHeader header)
    {
        IMachine? machine = null;
        try
        {
            using var reader = SnapshotReader.Open(path);
            header = reader.Header;
            if (header.Part != SnapshotPart.Whole)
            {
                throw new CommandException($"Could not run {path}: it is one side's half of a guest. Make one guest of both halves first: pageferry recover merge DESTINATION-HALF SOURCE-HALF -o FILE.");
            }

            machine = CreateEmpty(MachineKind.Parse(header.MachineKind), MachineMemory.Create(header.Regions, backing ?? header.Backing), dirtyTracking);
            reader.ReadInto(machine.Memory);
            machine.LoadState(reader.State.Span);
            return machine;
        }
        catch (Exception e)
        {
            machine?.Dispose();
            if (e is SnapshotException || (e is not CommandException && e is IOException or InvalidDataException or ArgumentException or NotSupportedException or UnauthorizedAccessException))
            {
                throw new CommandException(e is SnapshotException ? e.Message : $"Could not run the guest in {path}: {Reason(e)}");
            }

            throw;
        }
    }

    // What .NET adds about parameter names says nothing to a user.
    private static string Reason(Exception e) =>
        e is ArgumentException { ParamName: { } name } ? e.Message.Replace($" (Parameter '{name}')", string.Empty, StringComparison.Ordinal) : e.Message;
}
