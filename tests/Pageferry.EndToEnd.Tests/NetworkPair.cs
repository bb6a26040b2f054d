using System.Diagnostics;
using System.Globalization;

namespace Pageferry.EndToEnd.Tests;

/// <summary>Two network namespaces, A and B, as two hosts with a cable between them (veth). They are removed with all that is in them.</summary>
internal sealed class NetworkPair : IDisposable
{
    public const string AddressA = "10.77.0.1";
    public const string AddressB = "10.77.0.2";
    public const string AddressB6 = "fd77::2";
    public const string SlowAddressB = "10.78.0.2";

    /// <summary>B's name on both: <c>ip netns exec</c> puts a hosts file of the namespace's own into place.</summary>
    public const string NameB = "b.example";

    private static int s_count;

    private PageferryProcess? _slowLink;

    private NetworkPair()
    {
        string name = string.Create(CultureInfo.InvariantCulture, $"pageferry-{Environment.ProcessId}-{Interlocked.Increment(ref s_count)}");
        A = name + "a";
        B = name + "b";
    }

    /// <summary>The namespaces' names.</summary>
    public string A { get; }

    public string B { get; }

    public static NetworkPair MakeOrSkip()
    {
        if (!Environment.IsPrivilegedProcess)
        {
            Assert.Skip("Only root can make network namespaces.");
        }

        var pair = new NetworkPair();
        try
        {
            pair.Make();
            return pair;
        }
        catch
        {
            pair.Dispose();
            throw;
        }
    }

    /// <summary>Holds what goes from A to B to a rate.</summary>
    /// <param name="rate">As tc(8) reads it: <c>200mbit</c>.</param>
    public void LimitRate(string rate) => Run("tc", "-n", A, "qdisc", "add", "dev", "cable", "root", "tbf", "rate", rate, "burst", "64k", "latency", "20ms");

    /// <summary>Adds a second cable, which delays what goes through it and loses a part.</summary>
    /// <param name="directory">Where to build the program that is the cable.</param>
    /// <param name="delayMs">How long a packet takes, each way.</param>
    /// <param name="lossPerMille">How many of 1000 packets are lost.</param>
    public async Task AddSlowLinkAsync(TemporaryDirectory directory, int delayMs, int lossPerMille)
    {
        string program = directory.Path("slow-link");
        Run("gcc", "-O2", "-Wall", "-Werror", "-o", program, Path.Combine(AppContext.BaseDirectory, "slow-link.c"));
        _slowLink = PageferryProcess.StartProgram(program, A, B, $"{delayMs}", $"{lossPerMille}");
        await _slowLink.WaitUntilAsync(() => _slowLink.Output.Contains("ready", StringComparison.Ordinal) || _slowLink.HasExited, "the slow link");
        Assert.False(_slowLink.HasExited, _slowLink.Errors);
        Address(A, "slow", "10.78.0.1/24");
        Address(B, "slow", $"{SlowAddressB}/24");
    }

    /// <summary>The command line that runs a program in one of the namespaces.</summary>
    public static string[] Inside(string name, string program, params string[] arguments) => ["ip", "netns", "exec", name, program, .. arguments];

    public void Dispose()
    {
        _slowLink?.Dispose();
        foreach (string name in (string[])[A, B])
        {
            if (File.Exists($"/run/netns/{name}"))
            {
                Run("ip", "netns", "delete", name);
            }

            if (Directory.Exists(Configuration(name)))
            {
                Directory.Delete(Configuration(name), recursive: true);
            }
        }
    }

    private static string Configuration(string name) => $"/etc/netns/{name}";

    private static void Address(string name, string device, params string[] addresses)
    {
        foreach (string address in addresses)
        {
            // Without duplicate address detection: an address is there at once.
            Run("ip", ["-n", name, "address", "add", address, "dev", device, .. address.Contains(':', StringComparison.Ordinal) ? ["nodad"] : Array.Empty<string>()]);
        }

        Run("ip", "-n", name, "link", "set", device, "up");
    }

    private static void Run(string program, params string[] arguments)
    {
        using Process process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardError = true, UseShellExecute = false })!;
        string errors = process.StandardError.ReadToEnd();
        process.WaitForExit();
        Assert.True(process.ExitCode == 0, $"{program} {string.Join(' ', arguments)}: {errors}");
    }

    private void Make()
    {
        foreach (string name in (string[])[A, B])
        {
            Run("ip", "netns", "add", name);
            Run("ip", "-n", name, "link", "set", "lo", "up");
            Directory.CreateDirectory(Configuration(name));
            File.WriteAllText(Path.Combine(Configuration(name), "hosts"), $"127.0.0.1 localhost\n{AddressB} {NameB}\n");
        }

        Run("ip", "link", "add", "cable", "netns", A, "type", "veth", "peer", "name", "cable", "netns", B);
        Address(A, "cable", $"{AddressA}/24", "fd77::1/64");
        Address(B, "cable", $"{AddressB}/24", $"{AddressB6}/64");
    }
}
