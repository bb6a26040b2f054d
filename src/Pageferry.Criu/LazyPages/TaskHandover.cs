using System.Diagnostics;
using Pageferry.Linux;

namespace Pageferry.Criu;

/// <summary>
/// What <c>criu restore --lazy-pages</c> sends: for each task its number, 4 bytes, and, if it has memory, a byte with its userfaultfd; then that it has finished. Each is looked at
/// first and received when it is seen to: until then it lies in the socket.
/// </summary>
internal static class TaskHandover
{
    /// <summary>What restore sends when all processes run: "FTSR".</summary>
    internal const int Finished = 0x52535446;

    /// <summary>How long the userfaultfd of a process may take to follow its number.</summary>
    private static readonly TimeSpan s_longestBetween = TimeSpan.FromSeconds(10);

    /// <summary>Looks at what the restore says next.</summary>
    /// <param name="restore">The restore.</param>
    /// <param name="userfaultfd">A duplicate of the process's userfaultfd; null if it has none, or there is no more process.</param>
    /// <returns>A process's number, negative if it has no memory; or <see cref="Finished"/>.</returns>
    internal static int Peek(UnixSocket restore, out FileDescriptor? userfaultfd)
    {
        Span<byte> task = stackalloc byte[sizeof(int) + 1];
        var descriptors = new FileDescriptor?[1];
        long began = Stopwatch.GetTimestamp();
        while (true)
        {
            int bytes = restore.Peek(task, descriptors, out int count);
            userfaultfd = count > 0 ? descriptors[0] : null;
            int pid = BitConverter.ToInt32(task);
            bool hasNone = pid is <= 0 or Finished;
            if (bytes >= sizeof(int) && hasNone)
            {
                // What was seen is the next one's.
                userfaultfd?.Dispose();
                userfaultfd = null;
            }

            if (bytes >= sizeof(int) && (hasNone || userfaultfd is not null))
            {
                return pid;
            }

            userfaultfd?.Dispose();
            if (bytes == 0)
            {
                throw new PageServerException("The restore broke off before it was finished. Its own log says why.");
            }

            // The rest is sent next. Waiting for it would take what is there.
            if (bytes > sizeof(int) || Stopwatch.GetElapsedTime(began) > s_longestBetween)
            {
                throw new PageServerException($"The restore did not send the userfaultfd of process {pid}.");
            }

            Thread.Sleep(1);
        }
    }

    /// <summary>Receives what <see cref="Peek"/> looked at.</summary>
    internal static void Receive(UnixSocket restore, bool hasUserfaultfd)
    {
        Span<byte> task = stackalloc byte[sizeof(int) + 1];
        var descriptors = new FileDescriptor?[1];
        for (Span<byte> left = hasUserfaultfd ? task : task[..sizeof(int)]; !left.IsEmpty;)
        {
            int received = restore.Receive(left, descriptors, out int count);
            left = received > 0 ? left[received..] : throw new PageServerException("The restore broke off before it was finished. Its own log says why.");
            if (count > 0)
            {
                descriptors[0]!.Dispose();
            }
        }
    }
}
