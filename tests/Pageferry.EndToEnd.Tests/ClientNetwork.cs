using System.Diagnostics;

namespace Pageferry.EndToEnd.Tests;

/// <summary>A third network namespace, of clients, with a cable to each of two hosts, and an address that moves between these: both have it, and the clients' route says who is meant.</summary>
internal sealed class ClientNetwork : IDisposable
{
    private const string Clients = "10.99.0.2";

    private readonly string _name;
    private readonly string _service;
    private readonly Dictionary<string, string> _gateways = [];

    /// <summary>Makes it. The address is the first host's.</summary>
    public ClientNetwork(NetworkPair hosts, string service)
    {
        _name = hosts.A + "c";
        _service = service;
        Run("ip", "netns", "add", _name);
        Run("ip", "-n", _name, "link", "set", "lo", "up");
        Run("ip", "-n", _name, "address", "add", $"{Clients}/32", "dev", "lo");
        Connect(hosts.A, "to-a", "10.98.1");
        Connect(hosts.B, "to-b", "10.98.2");
        Route(hosts.A);
    }

    /// <summary>Leads what is sent to the address to a host.</summary>
    public void Route(string host) => Run("ip", "-n", _name, "route", "replace", $"{_service}/32", "via", _gateways[host], "src", Clients);

    /// <summary>Connects a client.</summary>
    public RedisClient Connect() => new(_name, _service);

    public void Dispose() => Run("ip", "netns", "delete", _name);

    private static void Run(string program, params string[] arguments)
    {
        using Process process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardError = true, UseShellExecute = false })!;
        string errors = process.StandardError.ReadToEnd();
        process.WaitForExit();
        Assert.True(process.ExitCode == 0, $"{program} {string.Join(' ', arguments)}: {errors}");
    }

    private void Connect(string host, string device, string net)
    {
        Run("ip", "link", "add", device, "netns", _name, "type", "veth", "peer", "name", "to-c", "netns", host);
        Run("ip", "-n", _name, "address", "add", $"{net}.2/24", "dev", device);
        Run("ip", "-n", _name, "link", "set", device, "up");
        Run("ip", "-n", host, "address", "add", $"{net}.1/24", "dev", "to-c");
        Run("ip", "-n", host, "link", "set", "to-c", "up");
        Run("ip", "-n", host, "address", "add", $"{_service}/32", "dev", "lo");
        Run("ip", "-n", host, "route", "add", $"{Clients}/32", "via", $"{net}.2");
        _gateways[host] = $"{net}.1";
    }
}
