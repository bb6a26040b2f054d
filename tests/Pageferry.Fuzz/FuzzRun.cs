using System.Diagnostics;

namespace Pageferry.Fuzz;

/// <summary>Has a target read changed messages for a while: the same seed changes them alike.</summary>
/// <param name="target">Who reads.</param>
/// <param name="corpus">What is changed.</param>
/// <param name="seed">Which changes are made.</param>
internal sealed class FuzzRun(FuzzTarget target, IReadOnlyList<byte[]> corpus, int seed)
{
    /// <summary>How long one message may take before it hangs; the machine may be busy.</summary>
    private static readonly TimeSpan s_longest = TimeSpan.FromSeconds(10);

    /// <summary>What reading may allocate beside what grows with the message.</summary>
    private const long MostAllocated = 2 << 20;
    private const int MostAllocatedPerByte = 64;

    private byte[] _current = [];
    private long _begun;
    private volatile bool _stopping;
    private Exception? _failure;

    /// <summary>How many messages were read, and how many of them were taken.</summary>
    internal (long Read, long Taken) Count { get; private set; }

    /// <summary>The longest that one took.</summary>
    internal TimeSpan Slowest { get; private set; }

    /// <summary>The most that was allocated for one, in bytes.</summary>
    internal long MostAllocatedForOne { get; private set; }

    /// <summary>Runs.</summary>
    /// <param name="time">How long.</param>
    /// <exception cref="FuzzFailureException">A message broke the reader.</exception>
    internal void Run(TimeSpan time)
    {
        var reading = new Thread(ReadAll) { IsBackground = true, Name = target.Name };
        Volatile.Write(ref _begun, Stopwatch.GetTimestamp());
        reading.Start();
        long began = Stopwatch.GetTimestamp();
        while (Stopwatch.GetElapsedTime(began) < time && !reading.Join(TimeSpan.FromMilliseconds(20)))
        {
            CheckProgress();
        }

        _stopping = true;
        while (!reading.Join(TimeSpan.FromMilliseconds(20)))
        {
            CheckProgress();
        }

        if (_failure is not null)
        {
            throw new FuzzFailureException(target.Name, _current, _failure);
        }
    }

    private void CheckProgress()
    {
        if (Stopwatch.GetElapsedTime(Volatile.Read(ref _begun)) > s_longest)
        {
            throw new FuzzFailureException(target.Name, _current, new TimeoutException($"It has not been read after {s_longest.TotalSeconds} s."));
        }
    }

    private void ReadAll()
    {
        try
        {
            var mutator = new Mutator(seed);
            foreach (byte[] message in corpus)
            {
                // What runs first only is done now.
                _ = target.Takes(message);
            }

            while (!_stopping)
            {
                Read(mutator.Change(corpus[mutator.Pick(corpus.Count)], corpus[mutator.Pick(corpus.Count)]));
            }
        }
        catch (Exception failure)
        {
            _failure = failure;
        }
    }

    private void Read(byte[] message)
    {
        _current = message;
        long began = Stopwatch.GetTimestamp();
        Volatile.Write(ref _begun, began);
        long allocated = GC.GetAllocatedBytesForCurrentThread();
        bool isTaken = target.Takes(message);
        allocated = GC.GetAllocatedBytesForCurrentThread() - allocated;
        TimeSpan taken = Stopwatch.GetElapsedTime(began);
        Count = (Count.Read + 1, Count.Taken + (isTaken ? 1 : 0));
        Slowest = taken > Slowest ? taken : Slowest;
        MostAllocatedForOne = Math.Max(MostAllocatedForOne, allocated);
        if (allocated > MostAllocated + ((long)message.Length * MostAllocatedPerByte))
        {
            throw new InvalidOperationException($"{allocated} bytes were allocated for a message of {message.Length}.");
        }
    }
}
