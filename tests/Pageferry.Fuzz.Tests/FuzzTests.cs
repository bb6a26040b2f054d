namespace Pageferry.Fuzz.Tests;

/// <summary>Each reader of others' bytes reads the stored messages, and for a moment what is made of them. For longer: eng/fuzz.sh.</summary>
public class FuzzTests
{
    private const int Seed = 20261126;

    private static readonly TimeSpan s_moment = TimeSpan.FromSeconds(2);

    public static TheoryData<string> Targets => [.. FuzzTargets.All.Select(target => target.Name)];

    [Theory]
    [MemberData(nameof(Targets))]
    public void Each_stored_message_is_taken(string name) => Assert.All(Corpus.Of(Target(name)), message => Assert.True(Target(name).Takes(message)));

    [Theory]
    [MemberData(nameof(Targets))]
    public void No_changed_message_breaks_its_reader(string name)
    {
        var run = new FuzzRun(Target(name), Corpus.Of(Target(name)), Seed);
        run.Run(s_moment);
        TestContext.Current.TestOutputHelper?.WriteLine($"{run.Count} {run.Slowest.TotalMilliseconds:F1} ms, {run.MostAllocatedForOne} bytes");
        Assert.True(run.Count.Read > 0);
    }

    [Fact]
    public void A_reader_that_breaks_hangs_or_takes_memory_is_found()
    {
        byte[][] corpus = [[0, 0, 0, 0]];
        FuzzFailureException broken = Assert.Throws<FuzzFailureException>(
            () => new FuzzRun(new FuzzTarget("test", input => Assert.True(input.Length < 4 || input[2] < 9)), corpus, Seed).Run(s_moment));
        Assert.True(broken.Bytes[2] >= 9);
        _ = Assert.Throws<FuzzFailureException>(() => new FuzzRun(new FuzzTarget("test", input => GC.KeepAlive(new byte[input.Length << 20])), corpus, Seed).Run(s_moment));
        FuzzFailureException hanging = Assert.Throws<FuzzFailureException>(
            () => new FuzzRun(new FuzzTarget("test", input => Thread.Sleep(input.Length > 8 ? Timeout.Infinite : 0)), corpus, Seed).Run(TimeSpan.FromSeconds(30)));
        Assert.IsType<TimeoutException>(hanging.InnerException);
        Assert.False(new FuzzTarget("test", _ => throw new InvalidDataException(), typeof(InvalidDataException)).Takes([]));
    }

    private static FuzzTarget Target(string name) => FuzzTargets.All.Single(target => target.Name == name);
}
