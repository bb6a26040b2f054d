using System.Buffers.Binary;
using System.Diagnostics;
using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>Sends memory while the guest runs: all of it, then what was written meanwhile, round by round, until it is decided that the guest goes.</summary>
internal sealed class PreCopy(IMigratingGuest guest, OutgoingConnections session, OutgoingPages pages, BackgroundSender[] senders, PageThreads threads, Action<string> decided)
{
    /// <summary>How long the destination may take to place what the link still held when a round ended.</summary>
    private static readonly TimeSpan s_roundPatience = TimeSpan.FromSeconds(60);

    private readonly Convergence _convergence = new(session.Options, session.RoundTrip);
    private readonly long _began = Stopwatch.GetTimestamp();

    /// <summary>The last round, from 1.</summary>
    internal uint Generation { get; private set; }

    /// <summary>How long the guest would stand still if so many pages went meanwhile.</summary>
    internal TimeSpan ExpectedDowntime(long count) => _convergence.ExpectedDowntime(count);

    /// <summary>Sends rounds until something else is due.</summary>
    /// <param name="tracker">Tells what the guest writes.</param>
    /// <returns>What is due.</returns>
    internal DecisionKind Run(IDirtyTracker tracker)
    {
        if (Generation == 0)
        {
            pages.Pending.AddRun(0, pages.Memory.PageCount);
        }

        while (true)
        {
            RoundMeasure round = SendRound(tracker);
            Decision decision = _convergence.Decide(round, Stopwatch.GetElapsedTime(_began));
            session.Counters.Measured(_convergence.PagesPerSecond * Page.Size, _convergence.DirtyPerSecond * Page.Size, _convergence.ExpectedDowntime(round.Dirty));
            decided(decision.Reason);
            if (decision.Throttle != session.Counters.Throttle)
            {
                guest.Throttle(decision.Throttle);
                session.Counters.Throttle = decision.Throttle;
            }

            if (decision.Kind != DecisionKind.NextRound)
            {
                return decision.Kind;
            }
        }
    }

    /// <summary>Sends what is pending while the guest stands still.</summary>
    /// <param name="until">When to leave the rest pending, by <see cref="Stopwatch"/>.</param>
    internal void SendLast(long until) => Send(tracker: null, until);

    /// <summary>The destination has placed a round.</summary>
    internal void AwaitRoundDone()
    {
        byte[] done = session.Control.ReceiveAnswer(MessageType.RoundDone, sizeof(uint));
        if (done.Length != sizeof(uint) || BinaryPrimitives.ReadUInt32LittleEndian(done) != Generation)
        {
            throw new ProtocolException($"The destination has done another round than {Generation}.");
        }
    }

    /// <summary>When pre-copy has taken as long as it may; a round that is under way ends early then.</summary>
    private long TimeoutAt => session.Options.Timeout > TimeSpan.Zero ? _began + (long)(session.Options.Timeout.TotalSeconds * Stopwatch.Frequency) : long.MaxValue;

    private RoundMeasure SendRound(IDirtyTracker tracker)
    {
        long began = Stopwatch.GetTimestamp();
        long count = Send(tracker, TimeoutAt);
        session.Control.Patience = s_roundPatience;
        AwaitRoundDone();
        session.Control.Patience = MigrationSource.Patience;
        TimeSpan duration = Stopwatch.GetElapsedTime(began);
        count -= (long)pages.Pending.CountPages();
        tracker.Fetch(pages.Pending);
        return new RoundMeasure((int)Generation, count, duration, (long)pages.Pending.CountPages());
    }

    /// <returns>How many pages were to go.</returns>
    private long Send(IDirtyTracker? tracker, long until)
    {
        Generation++;
        var count = (long)pages.Pending.CountPages();
        session.Counters.Remaining = count;
        session.Counters.Round = Generation;
        threads.RunTogether("pre-copy", senders.Length, index => senders[index].SendRound(Generation, tracker, until));
        return count;
    }
}
