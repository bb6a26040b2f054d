namespace Pageferry.Migration;

/// <summary>
/// What one side of a migration keeps for a report: samples of its progress, its moments, and which ranges of memory went how and when. Its size is bounded:
/// of a migration that takes long, samples are farther apart.
/// </summary>
public sealed class MigrationRecording
{
    /// <summary>The most samples kept.</summary>
    public const int MostSamples = 512;

    /// <summary>The most moments kept: half of them from the beginning, the others the latest.</summary>
    public const int MostMoments = 256;

    /// <summary>Sampling begins so densely that a migration of a second has a picture, and never costs more: the interval doubles as the samples are thinned.</summary>
    private static readonly TimeSpan s_firstInterval = TimeSpan.FromMilliseconds(10);
    private static readonly TimeSpan s_longestInterval = TimeSpan.FromDays(1);

    private readonly Func<MigrationProgress> _progress;
    private readonly object _gate = new();
    private readonly List<MigrationProgress> _samples = new(MostSamples);
    private readonly List<MigrationMoment> _moments = new(MostMoments);
    private TimeSpan _interval = s_firstInterval;
    private Thread? _sampler;
    private bool _isEnding;

    internal MigrationRecording(Func<MigrationProgress> progress) => _progress = progress;

    /// <summary>The progress, sampled at intervals from the beginning to the end.</summary>
    public IReadOnlyList<MigrationProgress> Samples
    {
        get
        {
            lock (_gate)
            {
                return [.. _samples];
            }
        }
    }

    /// <summary>The moments, in their order.</summary>
    public IReadOnlyList<MigrationMoment> Moments
    {
        get
        {
            lock (_gate)
            {
                return [.. _moments];
            }
        }
    }

    /// <summary>Moments between the first half and the second that were not kept.</summary>
    public int MomentsLeftOut { get; private set; }

    /// <summary>Which ranges of memory went how and when, a column per sample; null if the migration ended before the memory was known.</summary>
    public TransferMap? Map { get; private set; }

    /// <summary>The memory is known: begins to sample.</summary>
    /// <param name="pages">How many pages it has.</param>
    internal void Begin(long pages)
    {
        Map = new TransferMap(pages, MostSamples);
        _sampler = new Thread(SampleUntilEnd) { IsBackground = true, Name = "recording" };
        _sampler.Start();
    }

    /// <summary>Keeps a moment.</summary>
    internal void Note(string? decision = null)
    {
        MigrationProgress progress = _progress();
        lock (_gate)
        {
            if (_moments.Count == MostMoments)
            {
                _moments.RemoveAt(MostMoments / 2);
                MomentsLeftOut++;
            }

            _moments.Add(new MigrationMoment(progress, decision));
        }
    }

    /// <summary>Takes the last sample, once.</summary>
    internal void End()
    {
        if (_sampler is { } sampler)
        {
            _sampler = null;
            lock (_gate)
            {
                _isEnding = true;
                Monitor.PulseAll(_gate);
            }

            sampler.Join();
            Sample();
        }
    }

    /// <summary>Takes a sample; when there are too many, every other one goes.</summary>
    internal void Sample()
    {
        MigrationProgress progress = _progress();
        lock (_gate)
        {
            if (_samples.Count == MostSamples)
            {
                for (int i = 0; i < MostSamples / 2; i++)
                {
                    _samples[i] = _samples[(2 * i) + 1];
                }

                _samples.RemoveRange(MostSamples / 2, MostSamples / 2);
                Map!.JoinColumns();
                _interval = _interval < s_longestInterval ? _interval * 2 : _interval;
            }

            _samples.Add(progress);
            Map!.CloseColumn();
        }
    }

    private void SampleUntilEnd()
    {
        lock (_gate)
        {
            while (!_isEnding)
            {
                Sample();
                _ = Monitor.Wait(_gate, _interval);
            }
        }
    }
}
