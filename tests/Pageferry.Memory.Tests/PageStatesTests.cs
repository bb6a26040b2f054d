using CsCheck;

namespace Pageferry.Memory.Tests;

public class PageStatesTests
{
    [Fact]
    public void All_pages_begin_absent()
    {
        using var states = new PageStates(100);
        Assert.Equal(100UL, states.CountRun(0, 100, PageState.Absent));
    }

    [Fact]
    public void Half_a_byte_is_kept_per_page()
    {
        using var states = new PageStates(1 << 18);
        Assert.Equal((1UL << 18) / 2, states.MemoryBytes);
    }

    [Fact]
    public void A_change_answers_with_the_state_found()
    {
        using var states = new PageStates(3);
        Assert.Equal(PageState.Absent, states.Change(1, PageState.Absent, PageState.Requested));
        Assert.Equal(PageState.Requested, states.Change(1, PageState.Absent, PageState.Present));
        Assert.Equal(PageState.Requested, states[1]);
        Assert.Equal(PageState.Absent, states[0]);
        Assert.Equal(PageState.Absent, states[2]);
    }

    [Fact]
    public void A_claim_stops_at_the_first_page_that_is_taken()
    {
        using var states = new PageStates(64);
        _ = states.Change(20, PageState.Absent, PageState.Present);
        _ = states.Change(7, PageState.Absent, PageState.Requested);
        Assert.Equal(17UL, states.Claim(3, 61, PageState.Arriving, out ulong requested));
        Assert.Equal(1UL, requested);
        Assert.Equal(0UL, states.Claim(3, 1, PageState.Arriving, out _));
        Assert.Equal(18UL, states.CountUnclaimable(3, 61));
    }

    [Fact]
    public void Pages_outside_are_refused()
    {
        using var states = new PageStates(16);
        Assert.Throws<ArgumentOutOfRangeException>(() => states[16]);
        Assert.Throws<ArgumentOutOfRangeException>(() => states.Claim(15, 2, PageState.Arriving, out _));
        Assert.Throws<ArgumentOutOfRangeException>(() => states.Claim(ulong.MaxValue, 2, PageState.Arriving, out _));
        Assert.Throws<ArgumentOutOfRangeException>(() => states.CountRun(1, ulong.MaxValue, PageState.Absent));
    }

    [Fact]
    public void A_run_is_counted_as_page_by_page() =>
        Gen.Select(Gen.Int[0, 7], Gen.Int[0, 40]).Array[1, 12].Sample(
            runs =>
            {
                PageState[] model = [.. runs.SelectMany(run => Enumerable.Repeat((PageState)run.Item1, run.Item2))];
                using var states = new PageStates((ulong)model.Length);
                for (int page = 0; page < model.Length; page++)
                {
                    _ = states.Change((ulong)page, PageState.Absent, model[page]);
                }

                for (int page = 0; page < model.Length; page++)
                {
                    foreach (int count in (ReadOnlySpan<int>)[model.Length - page, Math.Min(3, model.Length - page)])
                    {
                        int expected = model.Skip(page).Take(count).TakeWhile(state => state == model[page]).Count();
                        Assert.Equal((ulong)expected, states.CountRun((ulong)page, (ulong)count, model[page]));
                        Assert.Equal(0UL, states.CountRun((ulong)page, (ulong)count, (PageState)(((int)model[page] + 1) % 8)));
                    }
                }
            },
            threads: 1);

    [Fact]
    public void Arming_changes_what_is_known_of_a_run_and_nothing_else() =>
        Gen.Select(Gen.Select(Gen.Int[0, 7], Gen.Int[0, 70]).Array[1, 12], Gen.Double[0, 1], Gen.Double[0, 1]).Sample(
            (runs, from, part) =>
            {
                PageState[] model = [.. runs.SelectMany(run => Enumerable.Repeat((PageState)run.Item1, run.Item2))];
                using var states = new PageStates((ulong)model.Length);
                for (int page = 0; page < model.Length; page++)
                {
                    _ = states.Change((ulong)page, PageState.Absent, model[page]);
                }

                int first = (int)(from * model.Length);
                int count = (int)(part * (model.Length - first));
                bool IsIn(int page) => page >= first && page < first + count;
                ulong known = (ulong)model.AsSpan(first, count).ToArray().Count(state => state is PageState.Present or PageState.Zero or PageState.Removed);
                Assert.Equal(known, states.BeginArming((ulong)first, (ulong)count));
                PageState[] armed = [.. model.Select((state, page) => IsIn(page) && state is PageState.Present or PageState.Zero or PageState.Removed ? PageState.Arming : state)];
                Assert.Equal(armed, Enumerable.Range(0, model.Length).Select(page => states[(ulong)page]));

                ulong arming = (ulong)armed.AsSpan(first, count).ToArray().Count(state => state == PageState.Arming);
                Assert.Equal(arming, states.EndArming((ulong)first, (ulong)count, PageState.Absent));
                PageState[] ended = [.. armed.Select((state, page) => IsIn(page) && state == PageState.Arming ? PageState.Absent : state)];
                Assert.Equal(ended, Enumerable.Range(0, model.Length).Select(page => states[(ulong)page]));
            },
            threads: 1);

    [Fact]
    public void Claims_behave_like_a_plain_array_of_states()
    {
        Gen<(int Page, int Count, int State)[]> steps =
            Gen.Select(Gen.Int[0, 99], Gen.Int[0, 60], Gen.Int[0, 5]).Array[1, 60];
        steps.Sample(
            all =>
            {
                using var states = new PageStates(100);
                var model = new PageState[100];
                foreach ((int page, int count, int state) in all)
                {
                    int most = Math.Min(count, 100 - page);
                    if (state % 2 == 0)
                    {
                        _ = states.Change((ulong)page, model[page], (PageState)state);
                        model[page] = (PageState)state;
                        continue;
                    }

                    ulong claimed = states.Claim((ulong)page, (ulong)most, PageState.Arriving, out ulong requested);
                    int expected = 0;
                    ulong expectedRequested = 0;
                    while (expected < most && model[page + expected] is PageState.Absent or PageState.Requested)
                    {
                        expectedRequested += model[page + expected] == PageState.Requested ? 1UL : 0;
                        model[page + expected++] = PageState.Arriving;
                    }

                    Assert.Equal((ulong)expected, claimed);
                    Assert.Equal(expectedRequested, requested);
                }

                for (ulong page = 0; page < 100; page++)
                {
                    Assert.Equal(model[page], states[page]);
                }
            },
            iter: 2_000);
    }

    [Fact]
    public void Two_claimants_never_get_the_same_page()
    {
        const int Pages = 1 << 16;
        using var states = new PageStates(Pages);
        var owners = new int[Pages];
        void Claim(int seed)
        {
            var random = new Random(seed);
            for (int i = 0; i < 200_000; i++)
            {
                int page = random.Next(Pages);
                ulong claimed = states.Claim((ulong)page, (ulong)Math.Min(random.Next(1, 40), Pages - page), PageState.Arriving, out _);
                for (int k = 0; k < (int)claimed; k++)
                {
                    _ = Interlocked.Increment(ref owners[page + k]);
                }
            }
        }

        var threads = new[] { new Thread(() => Claim(1)), new Thread(() => Claim(2)) };
        Array.ForEach(threads, thread => thread.Start());
        Array.ForEach(threads, thread => thread.Join());
        for (int page = 0; page < Pages; page++)
        {
            Assert.Equal(states[(ulong)page] == PageState.Arriving ? 1 : 0, owners[page]);
        }
    }
}
