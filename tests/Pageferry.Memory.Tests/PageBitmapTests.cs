using CsCheck;

namespace Pageferry.Memory.Tests;

public class PageBitmapTests
{
    [Fact]
    public void It_behaves_like_a_set() =>
        Gen.Select(Gen.ULong[1, 300], Gen.Select(Gen.Int[0, 3], Gen.ULong[0, 299], Gen.ULong[0, 299]).Array[0, 60]).Sample((pageCount, steps) =>
        {
            var bitmap = new PageBitmap(pageCount);
            var model = new SortedSet<ulong>();
            foreach ((int kind, ulong a, ulong b) in steps)
            {
                ulong page = a % pageCount;
                ulong count = b % (pageCount - page + 1);
                ulong first = page / PageBitmap.PagesPerWord * PageBitmap.PagesPerWord;
                switch (kind)
                {
                    case 0:
                        Assert.Equal(model.Add(page), bitmap.Add(page));
                        break;
                    case 1:
                        Assert.Equal(model.Remove(page), bitmap.Take(page));
                        break;
                    case 2:
                        bitmap.AddRun(page, count);
                        for (ulong added = page; added < page + count; added++)
                        {
                            _ = model.Add(added);
                        }

                        break;
                    default:
                        ulong wanted = 0x5555_5555_5555_5555UL << (int)(b % 64);
                        ulong taken = bitmap.TakeWord(first, wanted);
                        for (ulong n = 0; n < PageBitmap.PagesPerWord; n++)
                        {
                            bool isWanted = ((wanted >> (int)n) & 1) != 0;
                            Assert.Equal(isWanted && model.Remove(first + n), ((taken >> (int)n) & 1) != 0);
                        }

                        break;
                }
            }

            Assert.Equal((ulong)model.Count, bitmap.CountPages());
            var found = new List<ulong>();
            for (ulong at = bitmap.Next(0, pageCount); at < pageCount; at = bitmap.Next(at + 1, pageCount))
            {
                found.Add(at);
                Assert.True(bitmap[at]);
            }

            Assert.Equal(model, found);
        });

    [Fact]
    public void Of_many_threads_one_takes_a_page()
    {
        const ulong Pages = 100_000;
        var bitmap = new PageBitmap(Pages);
        bitmap.AddRun(0, Pages);
        long taken = 0;
        Parallel.For(0, 4, _ =>
        {
            long mine = 0;
            for (ulong page = 0; page < Pages; page++)
            {
                mine += bitmap.Take(page) ? 1 : 0;
            }

            _ = Interlocked.Add(ref taken, mine);
        });
        Assert.Equal((long)Pages, taken);
    }

    [Fact]
    public void A_run_outside_is_refused()
    {
        var bitmap = new PageBitmap(64);
        Assert.Throws<ArgumentOutOfRangeException>(() => bitmap.AddRun(60, 5));
        Assert.Throws<ArgumentOutOfRangeException>(() => bitmap.AddRun(ulong.MaxValue, 2));
    }
}
