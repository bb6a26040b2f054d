using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary>A connection to a holder, on the holder's side.</summary>
/// <param name="socket">The connection; owned by the client.</param>
/// <param name="spoke">When it came, in milliseconds since the machine was started.</param>
internal sealed class HoldClient(UnixSocket socket, long spoke) : IDisposable
{
    /// <summary>The connection.</summary>
    internal UnixSocket Socket { get; } = socket;

    /// <summary>When it came or spoke last, in milliseconds since the machine was started.</summary>
    internal long Spoke { get; set; } = spoke;

    /// <summary>Names that it has. One that has any may be silent for as long as it likes.</summary>
    internal int Entries { get; set; }

    /// <summary>Closes the connection.</summary>
    public void Dispose() => Socket.Dispose();
}
