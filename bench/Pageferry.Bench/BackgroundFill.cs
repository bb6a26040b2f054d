using System.Diagnostics;
using Pageferry.Memory;
using Pageferry.Migration;

namespace Pageferry.Bench;

/// <summary>The whole memory of a guest that touches nothing, over one connection: received, placed and mapped for the guest.</summary>
internal static class BackgroundFill
{
    private const string Mebibytes = "1024";

    /// <summary>Alternates the product with a raw stream of as many bytes between two processes.</summary>
    public static int Compare(int rounds)
    {
        var comparison = new Comparison("background-fill", rounds);
        comparison.Alternate("free", "mib_per_s", Comparison.Ours("background-fill-once", Mebibytes), Comparison.Twin("stream", Mebibytes));
        comparison.Store();
        return 0;
    }

    /// <summary>Receives a memory and prints the rate.</summary>
    public static int RunOnce(ulong mebibytes)
    {
        ulong pages = (mebibytes << 20) / Page.Size;
        (PeerConnection connection, Task sourceEnded) = PageLink.Connect("background", pages);
        using var memory = GuestMemory.Create(pages * Page.Size);
        using var engine = new FaultEngine(memory);
        engine.Start(new NoSource());
        var receiver = new PageReceiver(connection, engine, new MigrationCounters(), ConnectionRole.Background);
        _ = connection.Socket.Poll(-1, System.Net.Sockets.SelectMode.SelectRead);
        long begin = Stopwatch.GetTimestamp();
        receiver.ReceiveAll();
        TimeSpan took = Stopwatch.GetElapsedTime(begin);
        connection.Dispose();
        sourceEnded.Wait();
        Console.WriteLine(FormattableString.Invariant($$"""{"mib_per_s":{{mebibytes / took.TotalSeconds:F1}},"unknown_pages":{{engine.UnknownPages}}}"""));
        return engine.UnknownPages == 0 ? 0 : 1;
    }

    /// <summary>Nobody touches the memory.</summary>
    private sealed class NoSource : IPageSource
    {
        public void Request(ReadOnlySpan<ulong> pages) => throw new InvalidOperationException("A page was touched.");
    }
}
