namespace Pageferry.Migration;

/// <summary>
/// Ends a session in which nothing comes any more, on any connection: no round of pre-copy has a deadline of its own, and a source whose host or network is
/// gone says nothing of it.
/// </summary>
internal sealed class SilenceWatch : IDisposable
{
    private const int LooksPerSilence = 4;

    private readonly Lock _lock = new();
    private readonly Func<long> _received;
    private readonly Action<Exception> _fail;
    private readonly TimeSpan _longest;
    private readonly Timer _timer;
    private long _seen;
    private int _silentLooks;
    private bool _hasEnded;

    /// <param name="longest">How long nothing may come.</param>
    /// <param name="received">A number that grows with what comes.</param>
    /// <param name="fail">Ends the session.</param>
    internal SilenceWatch(TimeSpan longest, Func<long> received, Action<Exception> fail)
    {
        _longest = longest;
        _received = received;
        _fail = fail;
        _timer = new Timer(_ => Look(), null, longest / LooksPerSilence, longest / LooksPerSilence);
    }

    /// <summary>Something came that the number does not count.</summary>
    internal void Hear()
    {
        lock (_lock)
        {
            _silentLooks = 0;
        }
    }

    /// <summary>Watches no more: when this returns, the session was ended or is not going to be.</summary>
    internal void End()
    {
        lock (_lock)
        {
            _hasEnded = true;
        }
    }

    public void Dispose()
    {
        End();
        _timer.Dispose();
    }

    private void Look()
    {
        lock (_lock)
        {
            long received = _received();
            _silentLooks = received == _seen ? _silentLooks + 1 : 0;
            _seen = received;
            if (_silentLooks >= LooksPerSilence && !_hasEnded)
            {
                _hasEnded = true;
                _fail(new TimeoutException($"The source has said nothing for {_longest.TotalSeconds:0.#} s."));
            }
        }
    }
}
