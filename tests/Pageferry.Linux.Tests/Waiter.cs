namespace Pageferry.Linux.Tests;

/// <summary>A thread of its own that may have to wait for a page.</summary>
internal sealed class Waiter<T>
{
    private const int LimitMilliseconds = 10_000;

    private readonly Task<T> _task;

    internal Waiter(Func<T> action) =>
        _task = Task.Factory.StartNew(action, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);

    /// <summary>Checks that the thread waits, as far as a moment can tell.</summary>
    internal void AssertWaits() => Assert.False(_task.Wait(100), "The thread was woken.");

    /// <summary>Waits for the thread's end.</summary>
    internal T Finish()
    {
        Assert.True(_task.Wait(LimitMilliseconds), "The thread still waits.");
        return _task.Result;
    }
}
