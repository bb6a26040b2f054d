using System.Runtime.InteropServices;

namespace Pageferry.Linux;

/// <summary>Waits until one of a few descriptors is readable: poll(2). Used by one thread; waiting allocates nothing.</summary>
public sealed class Poll
{
    private readonly FileDescriptor[] _descriptors;
    private readonly Interop.pollfd[] _entries;

    /// <summary>Makes a wait for descriptors that outlive it.</summary>
    /// <param name="descriptors">What to wait for.</param>
    public Poll(params FileDescriptor[] descriptors)
    {
        _descriptors = descriptors;
        _entries = new Interop.pollfd[descriptors.Length];
        for (int i = 0; i < descriptors.Length; i++)
        {
            _entries[i] = new Interop.pollfd { fd = descriptors[i].Number, events = Interop.POLLIN };
        }
    }

    /// <summary>Waits; a signal does not end the wait.</summary>
    /// <param name="timeoutMilliseconds">0 for a look only, -1 for no limit.</param>
    /// <returns>How many descriptors have something to say; 0 after the timeout.</returns>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public int Wait(int timeoutMilliseconds)
    {
        while (true)
        {
            int ready;

            // SAFETY: the entries are pinned for the call, and their number is the array's.
            unsafe
            {
                fixed (Interop.pollfd* entries = _entries)
                {
                    ready = Interop.Poll(entries, (nuint)_entries.Length, timeoutMilliseconds);
                }
            }

            if (ready >= 0)
            {
                return ready;
            }

            if (Marshal.GetLastPInvokeError() != (int)Errno.EINTR)
            {
                throw LinuxException.FromLastError($"poll {_descriptors.Length} file descriptors");
            }
        }
    }

    /// <summary>Whether a descriptor had something to read, an end or an error in the last wait.</summary>
    /// <param name="index">Its position in the constructor's list.</param>
    /// <returns>True for POLLIN, POLLHUP, POLLERR and POLLNVAL.</returns>
    public bool IsReadable(int index) => _entries[index].revents != 0;

    /// <summary>Whether a descriptor had an error in the last wait.</summary>
    /// <param name="index">Its position in the constructor's list.</param>
    /// <returns>True for POLLERR.</returns>
    internal bool IsFaulty(int index) => (_entries[index].revents & Interop.POLLERR) != 0;

    /// <summary>Whether a descriptor's other end was found closed in the last wait, whatever there is left to read.</summary>
    /// <param name="index">Its position in the constructor's list.</param>
    /// <returns>True for POLLHUP.</returns>
    public bool IsClosed(int index) => (_entries[index].revents & Interop.POLLHUP) != 0;
}
