using Pageferry.Memory;
using Pageferry.Migration;

namespace Pageferry.Fuzz;

/// <summary>Those who read streams of messages about pages, each at its own end of a connection. The first byte of an input says in which state.</summary>
internal static class PageStream
{
    private const int RepairFlag = 1;
    private const int SwitchedOverFlag = 2;
    private const int DemandFlag = 4;

    private static readonly Lazy<FaultEngine> s_engine = new(StartEngine);
    private static readonly Lazy<GuestMemory> s_memory = new(MakeMemory);

    /// <summary>The destination takes pages in.</summary>
    internal static void Receive(byte[] input) => Feed(input, flags => connection =>
    {
        FaultEngine engine = s_engine.Value;
        engine.Discard(0, FuzzTargets.Pages);
        using var requests = new Discarding();
        var pages = new IncomingPages(engine, new MigrationCounters(), new DemandRequester(engine.States, requests.Connection, _ => { }), 1, new ReceivedDigests(engine.Memory.PageCount));
        if ((flags & SwitchedOverFlag) != 0)
        {
            pages.SwitchOver(1);
        }

        new PageReceiver(connection, pages, (flags & DemandFlag) != 0 ? ConnectionRole.Demand : ConnectionRole.Background).ReceiveAll();
        FuzzTargets.Hold(!engine.Failed.IsCompleted, "the engine goes on");
    });

    /// <summary>The source takes requests.</summary>
    internal static void Serve(byte[] input) => Feed(input, flags => connection =>
    {
        var pages = new OutgoingPages(s_memory.Value);
        pages.Pending.AddRun(0, FuzzTargets.Pages);
        var server = new DemandServer(connection, pages, new MigrationCounters());
        if ((flags & SwitchedOverFlag) != 0)
        {
            server.SwitchOver(1);
        }

        server.Serve();
    });

    /// <summary>The source takes the digests of what arrived.</summary>
    internal static void Validate(byte[] input) => Feed(input, _ => connection => new PageValidation(s_memory.Value).Compare(connection));

    /// <summary>The source hears on a new link what its destination lacks.</summary>
    internal static void Miss(byte[] input) => Feed(input, flags => connection => _ = MissingPages.Receive(connection, new PageBitmap(FuzzTargets.Pages)));

    /// <summary>The source hears how far the guest is that it has the destination drop.</summary>
    internal static void Find(byte[] input) => Feed(input, _ => connection => FuzzTargets.Hold(Enum.IsDefined(MissingPages.ReceiveFound(connection)), "a guest is found in a state that is known"));

    private static void Feed(byte[] input, Func<byte, Action<PeerConnection>> read)
    {
        if (input.Length > 0)
        {
            byte[] stream = input[1..];
            if ((input[0] & RepairFlag) != 0)
            {
                PageFrames.Repair(stream);
            }

            try
            {
                Loopback.Feed(stream, read(input[0]));
            }
            catch (EndOfStreamException)
            {
                // The peer went: nothing was wrong with what it said.
            }
        }
    }

    private static GuestMemory MakeMemory()
    {
        GuestMemory memory = GuestMemory.Create(FuzzTargets.Pages * Page.Size);
        memory.Write(3 * Page.Size, [1, 2, 3]);
        return memory;
    }

    private static FaultEngine StartEngine()
    {
        var engine = new FaultEngine(GuestMemory.Create(FuzzTargets.Pages * Page.Size));
        engine.Start(new NoSource());
        return engine;
    }
}
