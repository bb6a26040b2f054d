using CsCheck;
using Pageferry.Memory;

namespace Pageferry.Migration.Tests;

/// <summary>What is coded is decoded to the same, and no bytes of a peer harm a decoder.</summary>
public class CodingTests
{
    /// <summary>A page, and what it is changed to: at some places, by some bytes.</summary>
    private static readonly Gen<(byte[] Before, byte[] Now)> s_pages =
        Gen.Select(Gen.Byte.Array[Page.Size], Gen.Select(Gen.Int[0, Page.Size - 1], Gen.Byte.Array[1, 300]).Array[0, 12]).Select((before, changes) =>
        {
            byte[] now = [.. before];
            foreach ((int at, byte[] bytes) in changes)
            {
                bytes.AsSpan(0, Math.Min(bytes.Length, now.Length - at)).CopyTo(now.AsSpan(at));
            }

            return (before, now);
        });

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(8)]
    [InlineData(16)]
    public void What_a_sender_remembers_fills_all_its_places(int senders)
    {
        // As many stripes of its own as there are places for.
        const int Stripes = 4;
        const ulong PagesPerStripe = BackgroundSender.PagesPerStripe;
        using var sent = new SentContent(Stripes * (int)PagesPerStripe * Page.Size, senders);
        var content = new byte[Page.Size];
        ulong[] own = [.. Enumerable.Range(0, Stripes).SelectMany(stripe => Enumerable.Range(0, (int)PagesPerStripe).Select(page => (((ulong)stripe * (ulong)senders) + 1) * PagesPerStripe + (ulong)page))];
        Array.ForEach(own, page => sent.Keep(page, 2, content));
        Assert.All(own, page => Assert.False(sent.Find(page).IsEmpty));
    }

    [Fact]
    public void A_delta_makes_the_page_of_the_page_before() => s_pages.Sample((before, now) =>
    {
        var delta = new byte[DeltaCoding.MostBytes];
        int bytes = DeltaCoding.Encode(before, now, delta);
        byte[] page = [.. before];
        return bytes < 0 || (DeltaCoding.TryApply(delta.AsSpan(0, bytes), page) && page.AsSpan().SequenceEqual(now));
    });

    [Fact]
    public void Every_run_of_changed_words_makes_a_delta_as_long_as_it_pays()
    {
        const int Words = Page.Size / sizeof(ulong);
        var before = new byte[Page.Size];
        new Random(1).NextBytes(before);
        var delta = new byte[DeltaCoding.MostBytes];
        for (int first = 0; first < Words; first++)
        {
            // At the edges of the page, of a length's first byte, and of what pays.
            foreach (int count in (int[])[1, 2, 126, 127, 128, 129, 254, 255, 256, Words - first])
            {
                if (first + count > Words)
                {
                    continue;
                }

                byte[] now = [.. before];
                for (int word = first; word < first + count; word++)
                {
                    now[(word * sizeof(ulong)) + (word % sizeof(ulong))] ^= 0x40;
                }

                int bytes = DeltaCoding.Encode(before, now, delta);
                bool pays = (count * sizeof(ulong)) + 4 <= DeltaCoding.MostBytes;
                Assert.Equal(pays ? (count * sizeof(ulong)) + (first < 128 ? 1 : 2) + (count < 128 ? 1 : 2) : -1, bytes);
                if (pays)
                {
                    byte[] page = [.. before];
                    Assert.True(DeltaCoding.TryApply(delta.AsSpan(0, bytes), page));
                    Assert.Equal(now, page);

                    // One that breaks off is none, or changes less than it was to.
                    page = [.. before];
                    Assert.False(DeltaCoding.TryApply(delta.AsSpan(0, bytes - 1), page));
                }
            }
        }
    }

    [Fact]
    public void A_small_change_is_a_small_delta()
    {
        var before = new byte[Page.Size];
        byte[] now = [.. before];
        now[1234] = 1;
        now[4095] = 2;
        var delta = new byte[DeltaCoding.MostBytes];
        Assert.InRange(DeltaCoding.Encode(before, now, delta), 1, 2 * (4 + sizeof(ulong)));
        Assert.Equal(0, DeltaCoding.Encode(before, before, delta));
    }

    [Fact]
    public void A_page_that_changed_all_over_is_none()
    {
        var now = new byte[Page.Size];
        Array.Fill(now, (byte)1);
        Assert.Equal(-1, DeltaCoding.Encode(new byte[Page.Size], now, new byte[DeltaCoding.MostBytes]));
    }

    [Fact]
    public void No_bytes_harm_a_delta() => Gen.Byte.Array[0, 300].Sample(delta =>
    {
        _ = DeltaCoding.TryApply(delta, new byte[Page.Size]);
    });

    [Theory]
    [InlineData(new byte[] { 1 })]
    [InlineData(new byte[] { 0, 0 })]
    [InlineData(new byte[] { 0, 1, 1, 2, 3 })]
    [InlineData(new byte[] { 0xff, 0x03, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 })]
    [InlineData(new byte[] { 0x80 })]
    public void What_is_no_delta_is_refused(byte[] delta) => Assert.False(DeltaCoding.TryApply(delta, new byte[Page.Size]));

    [Fact]
    public void Runs_make_the_set_that_they_were_made_of() =>
        Gen.Select(Gen.Int[1, 1000], Gen.Select(Gen.Int[0, 999], Gen.Int[1, 200]).Array[0, 30], Gen.Int[12, 200]).Sample((count, runs, room) =>
        {
            var pages = new PageBitmap((ulong)count);
            foreach ((int first, int length) in runs)
            {
                if (first < count)
                {
                    pages.AddRun((ulong)first, (ulong)Math.Min(length, count - first));
                }
            }

            var read = new PageBitmap((ulong)count);
            var message = new byte[room];
            for (ulong from = 0; from < pages.PageCount;)
            {
                ReadOnlySpan<byte> rest = message.AsSpan(0, RunCoding.Write(pages, ref from, message));
                for (ulong end = 0; !rest.IsEmpty;)
                {
                    (ulong first, ulong length) = RunCoding.Read(ref rest, ref end, pages.PageCount);
                    read.AddRun(first, length);
                }
            }

            return Enumerable.Range(0, count).All(page => pages[(ulong)page] == read[(ulong)page]);
        });

    [Fact]
    public void Runs_far_apart_make_the_set_that_they_were_made_of()
    {
        // Gaps and lengths of one byte to four, at their edges, from the first page to the last.
        const ulong Pages = 1 << 22;
        foreach (ulong size in (ulong[])[1, 63, 64, 65, 127, 128, (1 << 14) - 1, 1 << 14, (1 << 21) - 1, 1 << 21])
        {
            foreach (ulong first in (ulong[])[0, 1, size, Pages - size])
            {
                var pages = new PageBitmap(Pages);
                pages.AddRun(first, size);
                _ = pages.Add(Pages - 1);
                var message = new byte[RunCoding.MostMessageBytes];
                ulong from = 0;
                ReadOnlySpan<byte> rest = message.AsSpan(0, RunCoding.Write(pages, ref from, message));
                Assert.Equal(Pages, from);
                var read = new PageBitmap(Pages);
                for (ulong end = 0; !rest.IsEmpty;)
                {
                    (ulong at, ulong count) = RunCoding.Read(ref rest, ref end, Pages);
                    read.AddRun(at, count);
                }

                Assert.Equal(pages.CountPages(), read.CountPages());
                for (ulong word = 0; word < Pages; word += PageBitmap.PagesPerWord)
                {
                    Assert.True(pages.Word(word) == read.Word(word));
                }
            }
        }
    }

    [Theory]
    [InlineData(new byte[] { 0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 1 }, uint.MaxValue, 1)]
    [InlineData(new byte[] { 0, 0x80, 0x80, 0x80, 0x80, 0x10 }, 0, 1L << 32)]
    public void The_largest_numbers_are_read(byte[] bytes, long first, long count)
    {
        ReadOnlySpan<byte> rest = bytes;
        ulong end = 0;
        Assert.Equal(((ulong)first, (ulong)count), RunCoding.Read(ref rest, ref end, 1UL << 32));
        Assert.True(rest.IsEmpty);
    }

    [Theory]
    [InlineData(new byte[] { 0, 0 })]
    [InlineData(new byte[] { 0 })]
    [InlineData(new byte[] { 0x80 })]
    [InlineData(new byte[] { 100, 1 })]
    [InlineData(new byte[] { 99, 2 })]
    [InlineData(new byte[] { 0x80, 0x80, 0x80, 0x80, 0x80, 0, 1 })]
    public void What_is_no_run_is_refused(byte[] bytes) => Assert.Throws<ProtocolException>(() =>
    {
        ReadOnlySpan<byte> rest = bytes;
        ulong end = 0;
        _ = RunCoding.Read(ref rest, ref end, 100);
    });

    [Fact]
    public void No_bytes_harm_runs() => Gen.Select(Gen.Byte.Array[1, 60], Gen.ULong[1, 100_000]).Sample((bytes, count) =>
    {
        ReadOnlySpan<byte> rest = bytes;
        ulong end = 0;
        try
        {
            while (!rest.IsEmpty)
            {
                (ulong first, ulong length) = RunCoding.Read(ref rest, ref end, count);
                if (length == 0 || first + length > count)
                {
                    return false;
                }
            }

            return true;
        }
        catch (ProtocolException)
        {
            return true;
        }
    });

    [Fact]
    public void No_bytes_harm_a_switchover() => Gen.Byte.Array[0, 100].Sample(bytes =>
    {
        try
        {
            var read = SwitchoverMessage.Deserialize(bytes);
            return read.Serialize().AsSpan().SequenceEqual(bytes);
        }
        catch (ProtocolException)
        {
            return true;
        }
    });

    [Theory]
    [InlineData((byte)PageEncoding.Lz4)]
    [InlineData((byte)PageEncoding.Zstd)]
    public void What_is_packed_is_unpacked_and_no_bytes_harm(byte encoding)
    {
        using var packing = new PagePacking();
        Gen.Select(Gen.Byte[0, 7].Array[1, 20_000], Gen.Select(Gen.Int[0, 30_000], Gen.Byte).Array[0, 5], Gen.Int[0, 100]).Sample(
            (content, damage, cut) =>
            {
                var packed = new byte[content.Length + 1000];
                int bytes = packing.Pack((PageEncoding)encoding, content, packed);
                var unpacked = new byte[content.Length];
                if (!packing.TryUnpack((PageEncoding)encoding, packed.AsSpan(0, bytes), unpacked) || !unpacked.AsSpan().SequenceEqual(content)
                    || packing.TryUnpack((PageEncoding)encoding, packed.AsSpan(0, bytes), new byte[content.Length + 1]))
                {
                    return false;
                }

                foreach ((int at, byte value) in damage)
                {
                    packed[at % bytes] = value;
                }

                _ = packing.TryUnpack((PageEncoding)encoding, packed.AsSpan(0, Math.Max(0, bytes - cut)), unpacked);
                return true;
            },
            threads: 1,
            iter: 500);
    }

    [Fact]
    public void Content_that_does_not_fit_is_not_packed()
    {
        using var packing = new PagePacking();
        var content = new byte[4096];
        new Random(1).NextBytes(content);
        Assert.Equal(0, packing.Pack(PageEncoding.Lz4, content, new byte[3900]));
        Assert.Equal(0, packing.Pack(PageEncoding.Zstd, content, new byte[3900]));
    }
}
