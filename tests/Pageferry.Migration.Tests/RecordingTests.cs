namespace Pageferry.Migration.Tests;

public sealed class RecordingTests
{
    [Theory]
    [InlineData(1, 1, 1)]
    [InlineData(256, 1, 256)]
    [InlineData(257, 2, 129)]
    [InlineData(16_384, 64, 256)]
    [InlineData(100_000, 512, 196)]
    [InlineData(1L << 32, 1 << 24, 256)]
    public void Memory_of_any_size_has_so_many_ranges(long pages, long pagesPerRange, int ranges)
    {
        var map = new TransferMap(pages, mostColumns: 2);
        Assert.Equal(pagesPerRange, map.PagesPerRange);
        Assert.Equal(ranges, map.Ranges);
        map.Add(TransferKind.Zero, 0, (ulong)pages);
        map.CloseColumn();
        Assert.Equal(pages, Sum(map, 0, TransferKind.Zero));
        Assert.Equal(pages - ((ranges - 1) * pagesPerRange), map[0, ranges - 1, TransferKind.Zero]);
    }

    [Fact]
    public void Pages_are_counted_in_their_range_and_in_the_column_in_which_they_went()
    {
        var map = new TransferMap(1024, mostColumns: 4);
        map.AddMask(TransferKind.Precopy, 0, 0b1111);
        map.CloseColumn();
        map.AddMask(TransferKind.Demand, 4, 1);
        map.Add(TransferKind.Precopy, 1018, 6);
        map.CloseColumn();
        Assert.Equal(4, map.PagesPerRange);
        Assert.Equal((4, 0), (map[0, 0, TransferKind.Precopy], map[1, 0, TransferKind.Precopy]));
        Assert.Equal((0, 1), (map[0, 1, TransferKind.Demand], map[1, 1, TransferKind.Demand]));
        Assert.Equal((2, 4), (map[1, 254, TransferKind.Precopy], map[1, 255, TransferKind.Precopy]));
        map.JoinColumns();
        Assert.Equal(1, map.Columns);
        Assert.Equal((4, 1, 4), (map[0, 0, TransferKind.Precopy], map[0, 1, TransferKind.Demand], map[0, 255, TransferKind.Precopy]));
    }

    [Fact]
    public async Task Nothing_is_lost_while_columns_are_made_and_joined()
    {
        const int Writers = 3;
        const int Batches = 50_000;
        long sent = 0;
        var recording = new MigrationRecording(() => new MigrationProgress { Phase = MigrationPhase.PreCopy, PagesPrecopy = Volatile.Read(ref sent) });
        recording.Begin(100_000);
        Task[] writing = [.. Enumerable.Range(0, Writers).Select(writer => Task.Run(() =>
        {
            for (int i = 0; i < Batches; i++)
            {
                recording.Map!.AddMask(TransferKind.Precopy, (ulong)((i * 64 + writer * 7) % 99_900), 0xF0F0_F0F0_F0F0_F0F0);
                _ = Interlocked.Add(ref sent, 32);
            }
        }))];
        while (!Task.WhenAll(writing).IsCompleted)
        {
            recording.Sample();
        }

        await Task.WhenAll(writing);
        for (int i = 0; i < 3 * MigrationRecording.MostSamples; i++)
        {
            recording.Sample();
        }

        recording.End();
        TransferMap map = recording.Map!;
        Assert.InRange(recording.Samples.Count, MigrationRecording.MostSamples / 2, MigrationRecording.MostSamples);
        Assert.Equal(recording.Samples.Count, map.Columns);
        Assert.Equal(32L * Writers * Batches, recording.Samples[^1].PagesPrecopy);
        Assert.Equal(32L * Writers * Batches, Enumerable.Range(0, map.Columns).Sum(column => Sum(map, column, TransferKind.Precopy)));
    }

    [Fact]
    public void Of_many_moments_the_first_and_the_latest_are_kept()
    {
        var recording = new MigrationRecording(() => default);
        for (int i = 0; i < 1000; i++)
        {
            recording.Note($"{i}");
        }

        Assert.Equal(MigrationRecording.MostMoments, recording.Moments.Count);
        Assert.Equal(1000 - MigrationRecording.MostMoments, recording.MomentsLeftOut);
        Assert.Equal(("0", "127", "872", "999"), (recording.Moments[0].Decision, recording.Moments[127].Decision, recording.Moments[128].Decision, recording.Moments[^1].Decision));
    }

    [Fact]
    public void Recording_a_page_allocates_nothing()
    {
        var map = new TransferMap(1 << 20, mostColumns: 2);
        map.AddMask(TransferKind.Demand, 0, 1);
        long before = GC.GetAllocatedBytesForCurrentThread();
        for (ulong page = 0; page < 1 << 18; page += 64)
        {
            map.AddMask(TransferKind.Demand, page, 0b101);
            map.Add(TransferKind.Zero, page, 3);
        }

        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
    }

    private static long Sum(TransferMap map, int column, TransferKind kind) => Enumerable.Range(0, map.Ranges).Sum(range => (long)map[column, range, kind]);
}
