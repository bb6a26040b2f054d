using System.Globalization;

namespace Pageferry.Testing;

/// <summary>Huge pages for the tests, given back at their end.</summary>
public sealed class HugePages : IDisposable
{
    private const string Setting = "/proc/sys/vm/nr_hugepages";
    private const int Wanted = 96;

    private readonly string _before = File.ReadAllText(Setting).Trim();

    public HugePages() => File.WriteAllText(Setting, Math.Max(Wanted, int.Parse(_before, CultureInfo.InvariantCulture)).ToString(CultureInfo.InvariantCulture));

    public void Dispose() => File.WriteAllText(Setting, _before);
}
