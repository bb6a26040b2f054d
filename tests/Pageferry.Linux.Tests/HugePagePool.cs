using System.Globalization;

namespace Pageferry.Linux.Tests;

/// <summary>Reserves a few 2 MiB pages for the tests that need them, and gives them back.</summary>
public sealed class HugePagePool : IDisposable
{
    internal const ulong PageSize = 2 << 20;

    private const string Pool = "/sys/kernel/mm/hugepages/hugepages-2048kB";
    private const int Wanted = 4;

    private readonly int _before;

    public HugePagePool()
    {
        if (!Directory.Exists(Pool))
        {
            return;
        }

        _before = Number("nr_hugepages");
        try
        {
            Reserve(_before + Wanted);
            IsReserved = Number("free_hugepages") >= Wanted;
        }
        catch (UnauthorizedAccessException)
        {
            // Not root: the tests say that they were skipped.
        }
    }

    internal bool IsReserved { get; }

    internal static int Free => Number("free_hugepages") - Number("resv_hugepages");

    public void Dispose()
    {
        if (IsReserved)
        {
            Reserve(_before);
        }
    }

    private static int Number(string name) => int.Parse(File.ReadAllText(Path.Combine(Pool, name)), CultureInfo.InvariantCulture);

    private static void Reserve(int count) => File.WriteAllText(Path.Combine(Pool, "nr_hugepages"), count.ToString(CultureInfo.InvariantCulture));
}
