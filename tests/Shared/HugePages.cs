using System.Globalization;

namespace Pageferry.Testing;

/// <summary>Huge pages for the tests, given back when the last of them ends.</summary>
public sealed class HugePages : IDisposable
{
    private const string Setting = "/proc/sys/vm/nr_hugepages";
    private const int Wanted = 128;

    private static readonly Lock s_gate = new();
    private static int s_users;
    private static int s_before;

    public HugePages()
    {
        lock (s_gate)
        {
            if (s_users++ == 0)
            {
                s_before = int.Parse(File.ReadAllText(Setting), CultureInfo.InvariantCulture);
                Reserve(Math.Max(Wanted, s_before));
            }
        }
    }

    public void Dispose()
    {
        lock (s_gate)
        {
            if (--s_users == 0)
            {
                Reserve(s_before);
            }
        }
    }

    private static void Reserve(int count) => File.WriteAllText(Setting, count.ToString(CultureInfo.InvariantCulture));
}
