namespace Pageferry.Migration;

/// <summary>The threads of a session: when one fails the others are ended too, and the first failure is the one that counts.</summary>
/// <param name="connections">The session's, its control connection first: on that one the peer is told at the end what failed.</param>
internal sealed class PageThreads(IReadOnlyList<PeerConnection> connections)
{
    private readonly List<Thread> _threads = [];
    private readonly TaskCompletionSource _failed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private Exception? _first;
    private volatile bool _finishing;

    /// <summary>Runs something on a thread of its own.</summary>
    internal void Start(string name, Action work)
    {
        var thread = new Thread(() => Guard(work)) { IsBackground = true, Name = name };
        _threads.Add(thread);
        thread.Start();
    }

    /// <summary>Runs something here; when it has ended, all threads are ended and the first failure of any is thrown.</summary>
    internal void Run(Action work)
    {
        Guard(work);
        End();
        ThrowFirst();
    }

    /// <summary>Runs something on several threads, of which this is one, and returns when all have ended.</summary>
    /// <param name="name">The others' name.</param>
    /// <param name="count">How many threads.</param>
    /// <param name="work">What to run, given which of them it is, from 0.</param>
    /// <exception cref="Exception">What failed first, here or on any thread.</exception>
    internal void RunTogether(string name, int count, Action<int> work)
    {
        var others = new Thread[count - 1];
        for (int i = 0; i < others.Length; i++)
        {
            int index = i + 1;
            others[i] = new Thread(() => Guard(() => work(index))) { IsBackground = true, Name = name };
            others[i].Start();
        }

        Guard(() => work(0));
        Array.ForEach(others, thread => thread.Join());
        ThrowFirst();
    }

    /// <summary>Completes when one of them has failed.</summary>
    internal Task Failed => _failed.Task;

    /// <summary>Waits until a thread has ended.</summary>
    internal void Join(string name) => _threads.Find(thread => thread.Name == name)!.Join();

    /// <summary>From now on the end of a connection is no failure.</summary>
    internal void Finish() => _finishing = true;

    /// <summary>Takes a failure that a thread of somebody else's met.</summary>
    internal void Fail(Exception failure)
    {
        if (!_finishing && Interlocked.CompareExchange(ref _first, failure, null) is null)
        {
            Shutdown();
            _ = _failed.TrySetResult();
        }
    }

    /// <exception cref="Exception">What failed first.</exception>
    internal void ThrowFirst()
    {
        if (_first is not null)
        {
            System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(_first);
        }
    }

    private void Guard(Action work)
    {
        try
        {
            work();
        }
        catch (Exception failure)
        {
            Fail(failure);
        }
    }

    private void End()
    {
        if (_first is null)
        {
            // Only the demand connection is still read: its end is the signal.
            Finish();
        }

        Shutdown();
        _threads.ForEach(thread => thread.Join());
    }

    private void Shutdown()
    {
        connections[0].StopReceiving();
        foreach (PeerConnection connection in connections.Skip(1))
        {
            connection.Shutdown();
        }
    }
}
