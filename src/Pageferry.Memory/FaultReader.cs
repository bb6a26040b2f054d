using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>What one reader thread of a fault engine has for itself.</summary>
/// <param name="cpu">The CPU that it runs on; null for any.</param>
internal sealed class FaultReader(int? cpu) : IDisposable
{
    /// <summary>The most messages read at once.</summary>
    internal const int EventsPerRead = 256;

    /// <summary>The CPU that the thread runs on; null for any.</summary>
    internal int? Cpu { get; } = cpu;

    /// <summary>The messages read last.</summary>
    internal UserfaultfdEventBuffer Events { get; } = new(EventsPerRead);

    /// <summary>The pages among them that are asked for.</summary>
    internal ulong[] Requests { get; } = new ulong[EventsPerRead];

    /// <summary>The thread, once it was started.</summary>
    internal Thread? Thread { get; set; }

    /// <inheritdoc/>
    public void Dispose() => Events.Dispose();
}
