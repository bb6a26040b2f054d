using System.Globalization;
using System.Text;
using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary>
/// The service manager that this process was started by, as sd_notify(3) and sd_listen_fds(3) have it: it is told how the service does, and may have a store of file descriptors,
/// which gives them to the process that comes after this one.
/// </summary>
/// <param name="address">Where it takes datagrams.</param>
internal sealed class ServiceManager(string address)
{
    /// <summary>The first descriptor that a process is given (<c>SD_LISTEN_FDS_START</c>).</summary>
    private const int FirstGiven = 3;

    /// <summary>What finds out whether there was room in the store.</summary>
    private const string Canary = "pageferry-canary";

    /// <summary>How long it may take to do what it is told. It is the machine's first process, and may be busy; who waits for a holder waits for 10 s.</summary>
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(4);

    /// <summary>Names that it could not be told to remove.</summary>
    private readonly Queue<string> _unremoved = [];

    /// <summary>Whom the environment names.</summary>
    /// <returns>It; null if this process is no service of one that is to be told.</returns>
    internal static ServiceManager? FromEnvironment() => Environment.GetEnvironmentVariable("NOTIFY_SOCKET") is { Length: > 0 } address ? new ServiceManager(address) : null;

    /// <summary>Takes what it has stored for this process. Called once.</summary>
    /// <param name="most">The most descriptors that are taken; what is beyond stays as it is.</param>
    /// <returns>The descriptors and their names, which the caller disposes.</returns>
    internal static List<(string Name, FileDescriptor Descriptor)> TakeStored(int most)
    {
        if (!int.TryParse(Environment.GetEnvironmentVariable("LISTEN_PID"), NumberStyles.None, CultureInfo.InvariantCulture, out int pid)
            || pid != Environment.ProcessId
            || !int.TryParse(Environment.GetEnvironmentVariable("LISTEN_FDS"), NumberStyles.None, CultureInfo.InvariantCulture, out int count))
        {
            return [];
        }

        string[] names = Environment.GetEnvironmentVariable("LISTEN_FDNAMES")?.Split(':') ?? [];
        var stored = new List<(string Name, FileDescriptor Descriptor)>();
        for (int i = 0; i < Math.Min(count, most); i++)
        {
            var descriptor = new FileDescriptor(FirstGiven + i);
            if (i < names.Length && names[i] == Canary)
            {
                descriptor.Dispose();
            }
            else
            {
                stored.Add((i < names.Length ? names[i] : string.Empty, descriptor));
            }
        }

        return stored;
    }

    /// <summary>Tells it something, if it can be told at once.</summary>
    /// <param name="state">As sd_notify(3) has it.</param>
    internal void Tell(string state) => _ = TrySend(state, null, until: 0);

    /// <summary>Has it store descriptors. When this returns true, they are: they come back in the process after this one until they are removed.</summary>
    /// <param name="descriptors">A name for each. None at all finds out whether there is a store.</param>
    /// <returns>Whether they are stored, all of them. If not, none is.</returns>
    internal bool TryStore(params ReadOnlySpan<(string Name, FileDescriptor Descriptor)> descriptors)
    {
        // What is still to be removed is removed first: it may be the same file, which is not stored twice.
        long until = Environment.TickCount64 + (long)s_patience.TotalMilliseconds;
        bool isDone = TryRemoveLeft(until);
        foreach ((string name, FileDescriptor descriptor) in descriptors)
        {
            isDone = isDone && TrySend(Storing(name), descriptor, until);
        }

        // It does not answer, and drops what it has no room for. So one more is stored, and looked at from its other end.
        (UnixSocket kept, UnixSocket sent) = UnixSocket.CreatePair(UnixSocketType.Stream);
        using (kept)
        {
            using (sent)
            {
                isDone = isDone && TrySend(Storing(Canary), sent.Descriptor, until);
            }

            isDone = isDone && TryAwait(until) && new Poll(kept.Descriptor).Wait(0) == 0;
            Remove(Canary);
        }

        if (!isDone)
        {
            foreach ((string name, _) in descriptors)
            {
                Remove(name);
            }
        }

        return isDone;
    }

    /// <summary>Has it remove what is stored under a name; if it can't be told now, before anything else is stored.</summary>
    internal void Remove(string name)
    {
        _unremoved.Enqueue(name);
        _ = TryRemoveLeft(until: 0);
    }

    private static string Storing(string name) => $"FDSTORE=1\nFDNAME={name}\nFDPOLL=0";

    private bool TryRemoveLeft(long until)
    {
        while (_unremoved.TryPeek(out string? name))
        {
            if (!TrySend($"FDSTOREREMOVE=1\nFDNAME={name}", null, until))
            {
                return false;
            }

            _ = _unremoved.Dequeue();
        }

        return true;
    }

    /// <returns>Whether it has done all that it was told before: it closes what it is sent with this when it comes to it.</returns>
    private bool TryAwait(long until)
    {
        (UnixSocket kept, UnixSocket sent) = UnixSocket.CreatePair(UnixSocketType.Stream);
        using (kept)
        {
            using (sent)
            {
                if (!TrySend("BARRIER=1", sent.Descriptor, until))
                {
                    return false;
                }
            }

            return new Poll(kept.Descriptor).Wait((int)Math.Max(0, until - Environment.TickCount64)) > 0;
        }
    }

    /// <returns>Whether it is in its queue, where it is read though this process may have ended; until then, in milliseconds since the machine was started, there may be no room.</returns>
    private bool TrySend(string state, FileDescriptor? descriptor, long until)
    {
        byte[] packet = Encoding.ASCII.GetBytes(state);
        try
        {
            using var socket = UnixSocket.ConnectDatagrams(address);
            while (!socket.TrySendPacket(packet, descriptor is null ? [] : [descriptor]))
            {
                // Its queue is full.
                if (Environment.TickCount64 >= until)
                {
                    return false;
                }

                Thread.Sleep(1);
            }

            return true;
        }
        catch (Exception e) when (e is LinuxException or ArgumentException)
        {
            return false;
        }
    }
}
