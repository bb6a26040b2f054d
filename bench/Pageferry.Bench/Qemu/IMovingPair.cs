using System.Text.Json.Nodes;

namespace Pageferry.Bench;

/// <summary>A guest, and a process beside it that waits for it.</summary>
internal interface IMovingPair : IDisposable
{
    /// <summary>Has the guest.</summary>
    PeerProcess Source { get; }

    /// <summary>Waits for it.</summary>
    PeerProcess Destination { get; }

    /// <summary>Lets the guest stand still.</summary>
    void Pause();

    /// <summary>Begins to move the guest.</summary>
    void Begin();

    /// <summary>Waits until all is at the destination.</summary>
    void End();

    /// <summary>Lets the guest stand still at the destination before all is there.</summary>
    void BreakOff();

    /// <summary>Lets the guest stand still at the destination and reads its memory.</summary>
    /// <param name="gpa">From where.</param>
    /// <param name="bytes">How much.</param>
    byte[] Read(ulong gpa, int bytes);

    /// <summary>What each side says of it in its own words: <c>source</c>, <c>destination</c>, and how long each demand fault took at the destination as <c>fault_mean_us</c> and <c>fault_p99_us</c> if there were any.</summary>
    JsonObject Report();
}
