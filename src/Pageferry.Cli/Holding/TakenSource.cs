using System.Text.Json;
using Pageferry.Linux;
using Pageferry.Memory;
using Pageferry.Migration;

namespace Pageferry.Cli;

/// <summary>What a source left at a holder, taken to be served on.</summary>
/// <param name="Client">The connection that has it: as long as it lives, nobody else serves it.</param>
/// <param name="Name">What it is kept as.</param>
/// <param name="Secret">Its secret.</param>
/// <param name="Source">How to go on.</param>
/// <param name="Record">The migration.</param>
/// <param name="Memory">The guest's memory, which the receiver disposes.</param>
internal sealed record TakenSource(HolderClient Client, string Name, byte[] Secret, HeldSource Source, SourceRecord Record, GuestMemory Memory)
{
    /// <summary>How long a process may take to end that was killed: its descriptors are closed last.</summary>
    private static readonly TimeSpan s_ending = TimeSpan.FromSeconds(5);

    private static readonly TimeSpan s_pollInterval = TimeSpan.FromMilliseconds(20);

    /// <summary>Takes the oldest of what sources left and nobody serves.</summary>
    /// <param name="path">The holder's socket.</param>
    /// <param name="cancellation">Ends the waiting for a process that is ending.</param>
    /// <returns>It.</returns>
    /// <exception cref="CommandException">There is nothing to serve, or it is not what this build knows.</exception>
    /// <exception cref="HolderException">There is no holder, or it does not answer.</exception>
    internal static async Task<TakenSource> TakeAsync(string path, CancellationToken cancellation)
    {
        HolderClient client = HolderClient.Connect(path);
        try
        {
            long until = Environment.TickCount64 + (long)s_ending.TotalMilliseconds;
            while (true)
            {
                if (TryTake(client, out bool isTaken) is { } taken)
                {
                    return taken;
                }

                if (!isTaken)
                {
                    throw new CommandException($"There is nothing to serve at {path}: no source that is gone has left anything there for this user.");
                }

                if (Environment.TickCount64 >= until)
                {
                    throw new CommandException($"There is nothing to serve at {path}: what is kept there is served already, by its source, which lives, or by another 'vm serve'. End that first.");
                }

                await Task.Delay(s_pollInterval, cancellation);
            }
        }
        catch
        {
            client.Dispose();
            throw;
        }
    }

    private static TakenSource? TryTake(HolderClient client, out bool isTaken)
    {
        isTaken = false;
        foreach ((string name, byte[] secret) in HoldSecret.Find(client.Path).Where(static found => !found.Name.StartsWith(RestoreKeeper.NamePrefix, StringComparison.Ordinal)))
        {
            try
            {
                return Read(client, name, secret, client.Take(name, secret));
            }
            catch (HolderException refusal) when (refusal.Answer == HoldAnswer.Taken)
            {
                isTaken = true;
            }
            catch (HolderException refusal) when (refusal.Answer == HoldAnswer.Unknown)
            {
                // Its process died before it had let go of the guest, or has finished.
                HoldSecret.Remove(client.Path, name);
            }
        }

        return null;
    }

    private static TakenSource Read(HolderClient client, string name, byte[] secret, HeldRecord held)
    {
        FileDescriptor? rest = null;
        try
        {
            // The holder hands out nothing else; this is what decides whether a guest may be served.
            if (held.Stage != HoldStage.LetGo || held.Descriptors.Length != 2)
            {
                throw new InvalidDataException($"it is {held.Stage} and has {held.Descriptors.Length} files, where a source that has let go of its guest leaves 2.");
            }

            (FileDescriptor memory, rest) = (held.Descriptors[0], held.Descriptors[1]);
            HeldSource source = JsonSerializer.Deserialize(held.Blob, CliJson.Default.HeldSource)
                ?? throw new InvalidDataException("it says nothing.");
            if (source is { To: null } or { Migration: null } or { Record: null })
            {
                throw new InvalidDataException("it does not say how to go on.");
            }

            if (source.Version != HeldSource.CurrentVersion)
            {
                throw new InvalidDataException($"it is of version {source.Version}; this build knows version {HeldSource.CurrentVersion}. Use the build that wrote it.");
            }

            byte[] state = BytesFile.Read(rest, MemoryFile.FromDescriptor(rest, "machine-state").Length, MigrationSource.MostStateBytes, "its machine state");
            var record = SourceRecord.Parse(source.Record, state);
            return new TakenSource(client, name, secret, source, record, GuestMemory.Create(record.Layout.Regions, record.Layout.Backing, MemoryFile.FromDescriptor(memory, "guest")));
        }
        catch (Exception e) when (e is JsonException or InvalidDataException or ArgumentException or IOException)
        {
            Array.ForEach(held.Descriptors, static descriptor => descriptor.Dispose());
            throw new CommandException($"Could not serve '{name}' of the holder at {client.Path}: {e.Message}");
        }
        finally
        {
            rest?.Dispose();
        }
    }
}
