using System.Buffers.Binary;
using Pageferry.Memory;

namespace Pageferry.Vmm.Tests.Tracking;

/// <summary>A device model: a thread that counts in a word of every seventh page which the built-in guests leave alone.</summary>
internal sealed class HostWriter : IDisposable
{
    private const ulong Offset = 2048;

    private readonly Thread _thread;
    private volatile bool _stopping;

    public HostWriter(GuestMemory memory)
    {
        _thread = new Thread(() => Run(memory)) { IsBackground = true };
        _thread.Start();
    }

    /// <summary>Held while it is to stand still.</summary>
    public Lock Gate { get; } = new();

    public void Dispose()
    {
        _stopping = true;
        _thread.Join();
    }

    private void Run(GuestMemory memory)
    {
        Span<byte> word = stackalloc byte[sizeof(ulong)];
        for (ulong count = 1; !_stopping; count++)
        {
            // Not below 1 MiB and in the page behind it, where the guest's tables and code are.
            for (ulong page = 263; page < memory.PageCount && !_stopping; page += 7)
            {
                BinaryPrimitives.WriteUInt64LittleEndian(word, count);
                lock (Gate)
                {
                    memory.Write(memory.GpaOf(page) + Offset, word);
                }
            }
        }
    }
}
