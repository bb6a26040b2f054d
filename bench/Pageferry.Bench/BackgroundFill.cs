using System.Diagnostics;
using Pageferry.Memory;
using Pageferry.Migration;

namespace Pageferry.Bench;

/// <summary>The whole memory of a guest that touches nothing, over one connection: received, placed and mapped for the guest.</summary>
internal static class BackgroundFill
{
    private const string Mebibytes = "1024";

    /// <summary>The memories of both sides, and some.</summary>
    private const ulong Populated = 3UL << 30;

    /// <summary>Alternates the product with a raw stream of as many bytes between two processes.</summary>
    public static int Compare(int rounds)
    {
        var comparison = new Comparison("background-fill", rounds);
        string[] memfd = Comparison.Ours("background-fill-once", Mebibytes, nameof(GuestBacking.Memfd));
        string[] anonymous = Comparison.Ours("background-fill-once", Mebibytes, nameof(GuestBacking.Anonymous));
        comparison.Alternate("memfd", "mib_per_s", Populated, memfd, Comparison.Twin("stream", Mebibytes));
        comparison.Alternate("anonymous", "mib_per_s", Populated, anonymous, Comparison.Twin("stream", Mebibytes));
        comparison.Alternate("memfd_beside_a_stream_into_new_memory", "mib_per_s", Populated, memfd, Comparison.Twin("stream", Mebibytes, "fresh"));
        comparison.Store();
        return 0;
    }

    /// <summary>Receives a memory and prints the rate.</summary>
    public static int RunOnce(ulong mebibytes, GuestBacking backing)
    {
        ulong pages = (mebibytes << 20) / Page.Size;
        (PeerConnection connection, Task sourceEnded) = PageLink.Connect("background", pages);
        using var memory = GuestMemory.Create(pages * Page.Size, backing);
        using var engine = new FaultEngine(memory);
        var requester = new DemandRequester(engine.States, connection, failure => throw failure);
        engine.Start(requester);
        PageReceiver receiver = PageLink.Receiver(connection, engine, requester, ConnectionRole.Background);
        _ = connection.Socket.Poll(-1, System.Net.Sockets.SelectMode.SelectRead);
        long begin = Stopwatch.GetTimestamp();
        Task.WaitAll([.. Enumerable.Range(0, receiver.Threads).Select(_ => Task.Factory.StartNew(receiver.ReceiveAll, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default))]);
        TimeSpan took = Stopwatch.GetElapsedTime(begin);
        connection.Dispose();
        sourceEnded.Wait();
        Console.WriteLine(FormattableString.Invariant($$"""{"mib_per_s":{{mebibytes / took.TotalSeconds:F1}},"unknown_pages":{{engine.UnknownPages}}}"""));
        return engine.UnknownPages == 0 ? 0 : 1;
    }
}
