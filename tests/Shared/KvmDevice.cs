namespace Pageferry.Testing;

/// <summary>Whether guests can run under KVM here.</summary>
internal static class KvmDevice
{
    private const string Path = "/dev/kvm";

    internal static bool IsPresent => File.Exists(Path);

    /// <summary>Skips the test that asks, if there is none.</summary>
    internal static void SkipIfMissing() => Assert.SkipUnless(IsPresent, $"{Path} is missing.");

    /// <summary>Skips the test that asks, if its host is KVM and there is none.</summary>
    /// <param name="host">As <c>--host</c> names it.</param>
    internal static void SkipIfMissing(string host)
    {
        if (host is "kvm" or "Kvm")
        {
            SkipIfMissing();
        }
    }
}
