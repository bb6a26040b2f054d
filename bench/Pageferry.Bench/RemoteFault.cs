using Pageferry.Memory;
using Pageferry.Migration;

namespace Pageferry.Bench;

/// <summary>A fault whose page is in another process behind loopback TCP: what the migration adds to a round trip and a local fault.</summary>
internal static class RemoteFault
{
    private const string Pages = "32768";

    /// <summary>Alternates the product with the ping-pong and the local fault in C, on one CPU and on two.</summary>
    public static int Compare(int rounds)
    {
        var comparison = new Comparison("remote-fault", rounds);
        string[] ours = Comparison.Ours("remote-fault-once", Pages);
        string[][] twins = [Comparison.Twin("ping_pong", Pages), Comparison.Twin("local_fault", Pages)];
        comparison.Alternate("one_cpu", "p50_ns", ["taskset", "-c", "0", .. ours], [.. twins.Select(twin => (string[])["taskset", "-c", "0", .. twin])]);
        comparison.Alternate("free", "p50_ns", ours, twins);
        comparison.Store();
        return 0;
    }

    /// <summary>Touches pages one after the other, or one in so many, and prints the percentiles of the wait, like the twins.</summary>
    public static int RunOnce(ulong pages, GuestBacking backing, ulong stride)
    {
        (PeerConnection connection, Task sourceEnded) = PageLink.Connect("demand", pages);
        using var memory = GuestMemory.Create(pages * Page.Size, backing);
        using var engine = new FaultEngine(memory);
        var requester = new DemandRequester(engine.States, connection, failure => throw failure);
        engine.Start(requester);
        PageReceiver receiver = PageLink.Receiver(connection, engine, requester, ConnectionRole.Demand);
        var receiving = new Thread(() => ReceiveUntilShutdown(receiver)) { IsBackground = true };
        receiving.Start();
        Waits.Print(memory, pages, stride);
        connection.Shutdown();
        receiving.Join();
        connection.Dispose();
        sourceEnded.Wait();
        return 0;
    }

    private static void ReceiveUntilShutdown(PageReceiver receiver)
    {
        try
        {
            receiver.ReceiveAll();
        }
        catch (EndOfStreamException)
        {
            // Enough was measured.
        }
    }
}
