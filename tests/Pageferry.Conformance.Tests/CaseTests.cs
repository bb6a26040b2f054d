using Pageferry.Linux;
using Pageferry.Memory;

namespace Pageferry.Conformance.Tests;

/// <summary>What becomes of a case that fails, with whatever it has begun. No other case runs meanwhile: children and file descriptors are counted.</summary>
[Collection(Cases)]
public class CaseTests
{
    internal const string Cases = "cases";

    private const int Times = 8;

    [Fact]
    public void A_rule_that_the_kernel_breaks_fails_with_what_was_expected_and_found()
    {
        CaseResult result = Run(arena =>
        {
            using Armed memory = arena.ArmMissing(1);
            memory.Place(0);
            memory.Place(0);
        });
        Assert.Equal(CaseOutcome.Fail, result.Outcome);
        Assert.Contains("expected Done, found AlreadyPresent", result.Detail, StringComparison.Ordinal);
    }

    [Fact]
    public void What_is_refused_to_a_case_is_a_failure()
    {
        CaseResult result = Run(_ => throw new LinuxException("arm", Errno.EINVAL));
        Assert.Equal(CaseOutcome.Fail, result.Outcome);
        Assert.Contains("EINVAL", result.Detail, StringComparison.Ordinal);
    }

    [Fact]
    public void A_feature_that_the_kernel_lacks_is_unsupported_with_its_answer()
    {
        CaseResult result = Run(arena => arena.Open((UserfaultfdFeatures)(1UL << 63)).Dispose());
        Assert.Equal(CaseOutcome.Unsupported, result.Outcome);
        Assert.Contains("EINVAL", result.Detail, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(MemoryKind.Anonymous)]
    [InlineData(MemoryKind.Shmem)]
    public void A_count_that_is_lost_fails_the_stress(MemoryKind memory)
    {
        CaseResult result = Run(arena => Bounce.Run(arena, isProtected: false, disturb: Forget), memory);
        Assert.Equal(CaseOutcome.Fail, result.Outcome);
        Assert.Contains("counts", result.Detail, StringComparison.Ordinal);

        static void Forget(Armed memory)
        {
            const int CounterAt = 512;
            for (int i = 0; i < 2000; i++)
            {
                memory.Region.CopyIn(((ulong)(i % 8) * memory.PageBytes) + CounterAt, [0, 0]);
            }
        }
    }

    [Fact]
    public void A_case_that_cannot_begin_leaves_nothing_open()
    {
        // Private anonymous memory has no minor faults: the registration is refused when all else is there.
        int Begin(int times)
        {
            for (int i = 0; i < times; i++)
            {
                CaseResult result = Run(arena => new Armed(arena, 1, UserfaultfdModes.Minor, UserfaultfdFeatures.None).Dispose());
                Assert.Equal(CaseOutcome.Fail, result.Outcome);
                Assert.Throws<ArgumentOutOfRangeException>(() => new Guarded(GuestBacking.Memfd, (FaultDelivery)9, 4096));
            }

            return Directory.GetFiles("/proc/self/fd").Length;
        }

        Assert.Equal(Begin(1), Begin(Times));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_case_that_fails_leaves_no_child(bool isTold)
    {
        // Where forking is told and nobody reads the message, the fork waits.
        CaseResult result = Run(arena =>
        {
            using Armed memory = arena.ArmMissing(1, isTold ? UserfaultfdFeatures.EventFork : UserfaultfdFeatures.None);
            Child idler = memory.ForkIdler();
            Child reader = memory.ForkReader(0);
            if (!isTold)
            {
                idler.Begun();
                _ = reader.Through();
            }

            throw new CaseFailedException("on purpose");
        });
        Assert.Equal("on purpose", result.Detail);
        Assert.True(result.Took < TimeSpan.FromSeconds(5), result.Took.ToString());
        Assert.All(Directory.GetDirectories("/proc/self/task"), thread => Assert.Empty(ChildrenOf(thread)));
    }

    [Fact]
    public void A_touch_that_is_refused_fails_its_case()
    {
        CaseResult result = Run(_ => new Touch(Start, () => throw new LinuxException("resolve", Errno.ENOMEM)).Through());
        Assert.Equal(CaseOutcome.Fail, result.Outcome);
        Assert.Contains("ENOMEM", result.Detail, StringComparison.Ordinal);

        static Thread Start(ThreadStart touch)
        {
            var thread = new Thread(touch);
            thread.Start();
            return thread;
        }
    }

    private static CaseResult Run(Action<Arena> run, MemoryKind memory = MemoryKind.Anonymous) =>
        ConformanceSuite.Run(new ConformanceCase('C', "broken", "a rule that doesn't hold", "nobody", [memory], run), memory);

    /// <summary>The processes that a thread has forked; none where the thread has ended meanwhile, whose children another thread has now.</summary>
    private static string ChildrenOf(string thread)
    {
        try
        {
            return File.ReadAllText(Path.Combine(thread, "children"));
        }
        catch (IOException)
        {
            return "";
        }
    }
}
