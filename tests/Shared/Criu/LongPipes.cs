using System.Globalization;

namespace Pageferry.Testing;

/// <summary>Lets pipes be as long as CRIU's own page server needs them, for as long as a test takes.</summary>
internal sealed class LongPipes : IDisposable
{
    private const string Setting = "/proc/sys/fs/pipe-max-size";
    private const int Needed = 4 << 20;

    private readonly string _before;

    private LongPipes(string before) => _before = before;

    internal static LongPipes AllowOrSkip()
    {
        string before = File.ReadAllText(Setting);
        if (int.Parse(before, CultureInfo.InvariantCulture) < Needed)
        {
            try
            {
                File.WriteAllText(Setting, $"{Needed}");
            }
            catch (Exception refusal) when (refusal is IOException or UnauthorizedAccessException)
            {
                Assert.Skip($"{Setting} is too low for CRIU's page server, and can't be changed: {refusal.Message}");
            }
        }

        return new LongPipes(before);
    }

    public void Dispose()
    {
        if (File.ReadAllText(Setting) != _before)
        {
            File.WriteAllText(Setting, _before);
        }
    }
}
