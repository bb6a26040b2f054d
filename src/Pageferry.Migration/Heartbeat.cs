namespace Pageferry.Migration;

/// <summary>
/// Has the peer hear on every connection of a link that this side is there, also when there is nothing to say: so silence means that the link is lost, in
/// whatever way.
/// </summary>
internal sealed class Heartbeat : IDisposable
{
    private const int BeatsPerSilence = 4;

    private readonly IReadOnlyList<PeerConnection> _link;
    private readonly TimeSpan _interval;
    private readonly ManualResetEventSlim _end = new();
    private readonly Thread _thread;

    /// <param name="link">The connections.</param>
    /// <param name="longestSilence">How long the peer waits for a sign of life.</param>
    internal Heartbeat(IReadOnlyList<PeerConnection> link, TimeSpan longestSilence)
    {
        _link = link;
        _interval = longestSilence / BeatsPerSilence;
        _thread = new Thread(Beat) { IsBackground = true, Name = "heartbeat" };
        _thread.Start();
    }

    public void Dispose()
    {
        _end.Set();
        _thread.Join();
        _end.Dispose();
    }

    private void Beat()
    {
        while (!_end.Wait(_interval))
        {
            foreach (PeerConnection connection in _link)
            {
                connection.KeepAlive();
            }
        }
    }
}
