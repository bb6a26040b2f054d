namespace Pageferry.Migration;

/// <summary>
/// Has the peer hear on every connection of a link that this side is there, also when there is nothing to say: so silence means that the link is lost, in
/// whatever way.
/// </summary>
internal sealed class Heartbeat : IDisposable
{
    private const int BeatsPerSilence = 4;

    /// <summary>Of the shortest silence that a peer may take for a lost link: how long it waits is not told.</summary>
    private static readonly TimeSpan s_interval = MigrationOptions.LeastLinkTimeout / BeatsPerSilence;

    private readonly IReadOnlyList<PeerConnection> _link;
    private readonly ManualResetEventSlim _end = new();
    private readonly Thread _thread;

    /// <param name="link">The connections.</param>
    internal Heartbeat(IReadOnlyList<PeerConnection> link)
    {
        _link = link;
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
        try
        {
            while (!_end.Wait(s_interval))
            {
                foreach (PeerConnection connection in _link)
                {
                    connection.KeepAlive();
                }
            }
        }
        catch (Exception)
        {
            // Whatever it is, the guest is not to die of it: the link is lost, and is made again.
            foreach (PeerConnection connection in _link)
            {
                connection.Shutdown();
            }
        }
    }
}
