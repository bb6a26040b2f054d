using Pageferry.Migration;

namespace Pageferry.Cli;

/// <summary>
/// Which ranges of memory went how and when. Each list has three numbers for each range and column in which pages went that way: the column, the range, and how
/// many pages. Column n is the time between the samples n - 1 and n; a range is <see cref="PagesPerRange"/> pages, in the order of addresses.
/// </summary>
/// <param name="PagesPerRange">Pages of each range; the last one may have fewer.</param>
/// <param name="Ranges">How many ranges the memory is divided into.</param>
/// <param name="Precopy">Pages that went with content before the switchover.</param>
/// <param name="Demand">Pages that went because the guest waited for them.</param>
/// <param name="Background">Pages that went with content after the switchover, before the guest touched them.</param>
/// <param name="Zero">Pages that are zero.</param>
internal sealed record ReportMap(
    long PagesPerRange, int Ranges, IReadOnlyList<int> Precopy, IReadOnlyList<int> Demand, IReadOnlyList<int> Background, IReadOnlyList<int> Zero)
{
    /// <summary>Takes what is shown out of a map.</summary>
    internal static ReportMap Of(TransferMap map) => new(
        map.PagesPerRange, map.Ranges, Cells(map, TransferKind.Precopy), Cells(map, TransferKind.Demand), Cells(map, TransferKind.Background), Cells(map, TransferKind.Zero));

    private static List<int> Cells(TransferMap map, TransferKind kind)
    {
        var cells = new List<int>();
        for (int range = 0; range < map.Ranges; range++)
        {
            for (int column = 0; column < map.Columns; column++)
            {
                if (map[column, range, kind] is > 0 and var pages)
                {
                    cells.AddRange(column, range, pages);
                }
            }
        }

        return cells;
    }
}
