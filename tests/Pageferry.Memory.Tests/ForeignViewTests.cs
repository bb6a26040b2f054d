using CsCheck;

namespace Pageferry.Memory.Tests;

/// <summary>Where another process's pages are is the same as in a dictionary, whatever the process moves and unmaps.</summary>
public class ForeignViewTests
{
    private const ulong Pages = 60;

    [Fact]
    public void Pages_are_where_moving_and_unmapping_put_them()
    {
        var range = Gen.Select(Gen.ULong[1, 99], Gen.ULong[1, 20]);
        Gen.Select(range, Gen.ULong[1, 99], Gen.Bool).List[0, 30].Sample(changes =>
        {
            var addresses = new GuestAddresses([new(10 * Page.Size, 20 * Page.Size), new(30 * Page.Size, 10 * Page.Size), new(50 * Page.Size, 30 * Page.Size)], Page.Size);
            var view = new ForeignView(addresses);
            var expected = new Dictionary<ulong, ulong>();
            for (ulong page = 0; page < Pages; page++)
            {
                expected[addresses.GpaOf(page) / Page.Size] = page;
            }

            foreach (((ulong first, ulong count), ulong to, bool isMove) in changes)
            {
                if (!isMove)
                {
                    view.Unmap(first * Page.Size, (first + count) * Page.Size);
                    Take(expected, first, count);
                }
                else if (to >= first + count || first >= to + count)
                {
                    view.Move(first * Page.Size, to * Page.Size, count * Page.Size);
                    _ = Take(expected, to, count);
                    foreach ((ulong address, ulong page) in Take(expected, first, count))
                    {
                        expected[address - first + to] = page;
                    }
                }
            }

            return Same(view, expected);
        });
    }

    private static List<KeyValuePair<ulong, ulong>> Take(Dictionary<ulong, ulong> map, ulong first, ulong count)
    {
        List<KeyValuePair<ulong, ulong>> taken = [.. map.Where(pair => pair.Key - first < count)];
        taken.ForEach(pair => map.Remove(pair.Key));
        return taken;
    }

    private static bool Same(ForeignView view, Dictionary<ulong, ulong> expected)
    {
        var found = new Dictionary<ulong, ulong>();
        for (ulong address = 0; view.TryNext(ref address, 200 * Page.Size, out ulong first, out ulong count);)
        {
            for (ulong i = 0; i < count; i++)
            {
                found.Add((address / Page.Size) - count + i, first + i);
            }
        }

        Dictionary<ulong, ulong> byPage = expected.ToDictionary(pair => pair.Value, pair => pair.Key * Page.Size);
        bool isSame = found.Count == expected.Count && found.All(pair => expected[pair.Key] == pair.Value);
        for (ulong page = 0; page < Pages; page++)
        {
            ulong address = view.AddressOf(page, out ulong together);
            isSame &= address == byPage.GetValueOrDefault(page, ForeignView.Nowhere);
            for (ulong i = 1; i < together; i++)
            {
                isSame &= byPage.GetValueOrDefault(page + i, ForeignView.Nowhere) == (address == ForeignView.Nowhere ? ForeignView.Nowhere : address + (i * Page.Size));
            }
        }

        return isSame;
    }
}
