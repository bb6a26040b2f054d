using System.Text.Json;
using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary>What a lazy-pages daemon that is gone left at a holder, taken to be gone on with.</summary>
/// <param name="Keeper">Keeps it on: as long as it lives, nobody else gets it.</param>
/// <param name="Record">What <see cref="Pageferry.Criu.LazyRestore"/> wrote.</param>
/// <param name="Descriptors">What it kept, which the receiver disposes.</param>
internal sealed record TakenRestore(RestoreKeeper Keeper, byte[] Record, FileDescriptor[] Descriptors)
{
    /// <summary>How long a process may take to end that was killed: its descriptors are closed last.</summary>
    private static readonly TimeSpan s_ending = TimeSpan.FromSeconds(5);

    private static readonly TimeSpan s_pollInterval = TimeSpan.FromMilliseconds(20);

    /// <summary>Takes what the daemon of a work directory left.</summary>
    /// <param name="path">The holder's socket.</param>
    /// <param name="workDirectory">The work directory.</param>
    /// <returns>It.</returns>
    /// <exception cref="CommandException">There is nothing to go on with, or it is not what this build knows.</exception>
    /// <exception cref="HolderException">There is no holder, or it does not answer.</exception>
    internal static TakenRestore Take(string path, string workDirectory)
    {
        // Where nothing is left to take, nobody would be asked.
        HolderClient.Connect(path).Dispose();
        long until = Environment.TickCount64 + (long)s_ending.TotalMilliseconds;
        while (true)
        {
            if (TryTake(path, workDirectory, out bool isTaken) is { } taken)
            {
                return taken;
            }

            if (!isTaken)
            {
                throw new CommandException($"There is nothing to go on with at {path}: no lazy-pages daemon that is gone has left anything of the work directory {workDirectory} there for this user. Begin without --resume.");
            }

            if (Environment.TickCount64 >= until)
            {
                throw new CommandException($"There is nothing to go on with at {path}: what lazy-pages daemons have left there is served already, by these, which live. End the one of {workDirectory} first.");
            }

            Thread.Sleep(s_pollInterval);
        }
    }

    private static TakenRestore? TryTake(string path, string workDirectory, out bool isTaken)
    {
        isTaken = false;
        foreach ((string name, byte[] secret) in HoldSecret.Find(path).Where(static found => found.Name.StartsWith(RestoreKeeper.NamePrefix, StringComparison.Ordinal)))
        {
            // What is another restore's is left for its own daemon when the connection closes.
            HolderClient? client = HolderClient.Connect(path);
            try
            {
                HeldRecord held = client.Take(name, secret);
                if (TryRead(client, name, held, workDirectory) is { } restore)
                {
                    var taken = new TakenRestore(new RestoreKeeper(client, name, secret, workDirectory), restore.Record, held.Descriptors);
                    client = null;
                    return taken;
                }
            }
            catch (HolderException refusal) when (refusal.Answer == HoldAnswer.Taken)
            {
                isTaken = true;
            }
            catch (HolderException refusal) when (refusal.Answer == HoldAnswer.Unknown)
            {
                // Its daemon has finished, or the holder is not the one it was left with.
                HoldSecret.Remove(path, name);
            }
            finally
            {
                client?.Dispose();
            }
        }

        return null;
    }

    /// <returns>Null if it is of another work directory; then its descriptors are closed.</returns>
    private static HeldRestore? TryRead(HolderClient client, string name, HeldRecord held, string workDirectory)
    {
        bool isTaken = false;
        try
        {
            HeldRestore restore = JsonSerializer.Deserialize(held.Blob, CliJson.Default.HeldRestore) ?? throw new InvalidDataException("it says nothing.");
            if (restore.WorkDirectory != workDirectory)
            {
                return null;
            }

            if (restore.Version != HeldRestore.CurrentVersion)
            {
                throw new InvalidDataException($"it is of version {restore.Version}; this build knows version {HeldRestore.CurrentVersion}. Use the build that wrote it.");
            }

            isTaken = restore.Record is not null;
            return isTaken ? restore : throw new InvalidDataException("it does not say how to go on.");
        }
        catch (Exception e) when (e is JsonException or InvalidDataException)
        {
            throw new CommandException($"Could not go on with '{name}' of the holder at {client.Path}: {e.Message}");
        }
        finally
        {
            if (!isTaken)
            {
                Array.ForEach(held.Descriptors, static descriptor => descriptor.Dispose());
            }
        }
    }
}
