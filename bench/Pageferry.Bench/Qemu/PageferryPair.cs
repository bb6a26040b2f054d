using System.Text.Json.Nodes;

namespace Pageferry.Bench;

/// <summary>The guest in Pageferry: two processes with <see cref="PageferryPeer"/>.</summary>
internal sealed class PageferryPair : IMovingPair
{
    private readonly MoveSettings _settings;
    private readonly string _folder;
    private readonly string _port;
    private JsonNode? _sourceReport;

    /// <summary>Starts both.</summary>
    /// <param name="folder">For files, with the certificates.</param>
    /// <param name="image">The guest.</param>
    /// <param name="settings">What is to be moved and how.</param>
    public PageferryPair(string folder, string image, MoveSettings settings)
    {
        _settings = settings;
        _folder = folder;
        string certificates = settings.IsSecured ? folder : PageferryPeer.NoCertificates;
        Source = PeerProcess.Start(Comparison.Ours("peer-source", MoveSettings.HasKvm ? image : PageferryPeer.ByThread, $"{settings.Mebibytes}", $"{settings.Backing}", certificates));
        Destination = PeerProcess.Start(Comparison.Ours("peer-destination", certificates));
        _port = Destination.Expect(PageferryPeer.Port);
        _ = Source.Expect(BenchGuest.Filled);
    }

    public PeerProcess Source { get; }

    public PeerProcess Destination { get; }

    public void Pause()
    {
        Source.Tell(PageferryPeer.Pause);
        _ = Source.Expect(PageferryPeer.Paused);
    }

    public void Begin() =>
        Source.Tell($"{PageferryPeer.Move} {_port} {_settings.Mode} {_settings.Connections} {_settings.DowntimeLimitMs} {_settings.MaxPostcopyBandwidth}");

    public void End()
    {
        _sourceReport = JsonNode.Parse(Source.Expect(PageferryPeer.Moved));
        _ = Destination.Expect(PageferryPeer.Arrived);
    }

    public void BreakOff()
    {
        Destination.Tell(PageferryPeer.Pause);
        _ = Destination.Expect(PageferryPeer.Paused);
    }

    public byte[] Read(ulong gpa, int bytes)
    {
        BreakOff();
        string file = Path.Combine(_folder, "memory");
        Destination.Tell($"{PageferryPeer.ReadMemory} {gpa} {bytes} {file}");
        _ = Destination.Expect(PageferryPeer.ReadMemory);
        return File.ReadAllBytes(file);
    }

    public JsonObject Report()
    {
        Destination.Tell(PageferryPeer.Report);
        JsonNode destination = JsonNode.Parse(Destination.Expect(PageferryPeer.Report))!;
        return new JsonObject
        {
            ["source"] = _sourceReport?.DeepClone(),
            ["destination"] = destination,
            ["fault_mean_us"] = destination["mean_us"]?.DeepClone(),
            ["fault_p99_us"] = destination["p99_us"]?.DeepClone(),
        };
    }

    public void Dispose()
    {
        Source.Dispose();
        Destination.Dispose();
    }
}
