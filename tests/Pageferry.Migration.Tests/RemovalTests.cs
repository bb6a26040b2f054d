using System.Net;
using System.Net.Sockets;
using Pageferry.Memory;
using Pageferry.Testing;

namespace Pageferry.Migration.Tests;

/// <summary>A balloon takes memory away at full rate while the guest moves: at the source, and at the destination against demand and background.</summary>
public class RemovalTests(HugePages hugePages)
{
    private const ulong Size = 64 << 20;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    private static readonly GuestBacking[] s_backings = [GuestBacking.Memfd, GuestBacking.Anonymous, GuestBacking.Memfd2M];

    public static TheoryData<MigrationMode, FaultDelivery, GuestBacking> Combinations => new MatrixTheoryData<MigrationMode, FaultDelivery, GuestBacking>(
        Enum.GetValues<MigrationMode>(), Enum.GetValues<FaultDelivery>(), s_backings);

    [Theory]
    [MemberData(nameof(Combinations))]
    public async Task What_the_balloon_took_is_zero_and_all_else_is_as_it_was(MigrationMode mode, FaultDelivery delivery, GuestBacking backing)
    {
        _ = hugePages;
        using GuestMemory memory = GuestMemory.Create(Size, backing);
        var ledger = new BalloonLedger(memory, memory.FaultSize);
        using var leaving = new BalloonGuest(memory, ledger);
        if (mode != MigrationMode.Postcopy)
        {
            leaving.Resume();
        }

        BalloonGuest? arrived = null;
        using var destination = new MigrationDestination(
            new IPEndPoint(IPAddress.Loopback, 0), layout => new BalloonGuest(GuestMemory.Create(layout.Regions, backing), ledger, delivery));
        Task receiving = Task.Run(() => destination.Receive(guest => arrived = (BalloonGuest)guest), TestContext.Current.CancellationToken);

        // Pre-copy is to end by itself; what follows the guest is to take a while.
        var source = new MigrationSource(leaving, new MigrationOptions
        {
            Mode = mode,
            DowntimeLimit = mode == MigrationMode.Precopy ? s_patience : TimeSpan.FromTicks(1),
            MaxPostcopyBandwidth = 100 << 20,
        });
        source.Run(destination.EndPoint);
        await receiving.WaitAsync(s_patience, TestContext.Current.CancellationToken);
        using BalloonGuest guest = arrived!;
        TestContext.Current.TestOutputHelper?.WriteLine($"{source.Progress} {leaving.Removals} {guest.Removals} {guest.Touches} {ledger.Removed} retried {guest.Engine.Statistics.Retries}");
        Assert.True(SpinWait.SpinUntil(() => guest.Failure is not null || (guest.Removals > 100 && guest.Touches > 1000), s_patience));
        guest.Pause();
        Assert.Null(leaving.Failure);
        Assert.Null(guest.Failure);
        Assert.Equal(0, guest.CountWrong());
        Assert.False(guest.Engine.Failed.IsCompleted);
        Assert.True(mode == MigrationMode.Postcopy ? guest.Engine.Statistics.RemovedPages > 100 : leaving.Removals > 100);
    }

    [Theory]
    [InlineData(GuestBacking.Memfd)]
    [InlineData(GuestBacking.Anonymous)]
    [InlineData(GuestBacking.Memfd2M)]
    public void What_was_removed_is_never_asked_for(GuestBacking backing)
    {
        using GuestMemory there = GuestMemory.Create(Size, backing);
        using GuestMemory memory = GuestMemory.Create(Size, backing);
        var ledger = new BalloonLedger(there, memory.FaultSize);
        using var guest = new BalloonGuest(memory, ledger);
        (PeerConnection Source, PeerConnection Destination)[] pairs = [Connect(), Connect(), Connect()];
        PeerConnection demand = pairs[0].Destination;
        using FaultEngine engine = guest.Engine;
        var requester = new DemandRequester(engine.States, demand, static failure => throw failure);
        var watch = new Watch(requester, ledger);
        engine.Start(watch);
        OutgoingPages outgoing = PageEnds.Outgoing(there);
        IncomingPages incoming = PageEnds.Incoming(engine, requester);
        guest.Resume();
        var threads = new PageThreads([.. pairs.SelectMany(pair => (PeerConnection[])[pair.Source, pair.Destination])]);
        threads.Run(() =>
        {
            threads.Start("demand", () => PageEnds.Serve(pairs[0].Source, outgoing));
            threads.Start("demand", () => PageEnds.Receive(demand, incoming, ConnectionRole.Demand));
            Assert.True(SpinWait.SpinUntil(() => engine.Statistics.DemandPages > 500, s_patience));
            for (int i = 1; i < pairs.Length; i++)
            {
                (PeerConnection Source, PeerConnection Destination) pair = pairs[i];
                threads.Start("background", () => PageEnds.Drain(pair.Source, outgoing));
                threads.Start("background", () => PageEnds.Receive(pair.Destination, incoming, ConnectionRole.Background));
            }

            Assert.True(engine.Completed.Wait(s_patience));
        });
        guest.Pause();
        Assert.Null(guest.Failure);
        Assert.Equal(0, guest.CountWrong());
        Assert.Empty(watch.AfterRemoval);
        Assert.True(watch.Requests > 100, $"{watch.Requests} requests");
        Assert.Equal(watch.Requests, watch.Different);
        Assert.True(guest.Removals > 100, $"{guest.Removals} removals");
        Array.ForEach(pairs, pair => (pair.Source as IDisposable).Dispose());
        Array.ForEach(pairs, pair => (pair.Destination as IDisposable).Dispose());
    }

    private static (PeerConnection Source, PeerConnection Destination) Connect()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        socket.Connect(listener.LocalEndpoint);
        return (new PeerConnection(socket), new PeerConnection(listener.AcceptSocket()));
    }

    /// <summary>Sees what is asked for, on the engine's reader thread, which a removal that has ended has waited for.</summary>
    private sealed class Watch(IPageSource source, BalloonLedger ledger) : IPageSource
    {
        private readonly HashSet<ulong> _asked = [];

        public List<ulong> AfterRemoval { get; } = [];

        public int Requests { get; private set; }

        public int Different => _asked.Count;

        public void Request(ReadOnlySpan<ulong> pages)
        {
            foreach (ulong page in pages)
            {
                Requests++;
                _ = _asked.Add(page);
                if (ledger.IsRemoved(page))
                {
                    AfterRemoval.Add(page);
                }
            }

            source.Request(pages);
        }
    }
}
