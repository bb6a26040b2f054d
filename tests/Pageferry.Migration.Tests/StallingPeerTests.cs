using System.Net;
using System.Net.Sockets;
using Pageferry.Memory;

namespace Pageferry.Migration.Tests;

/// <summary>Destinations that hold an answer back, and say meanwhile that they are there: before the switchover each answer has a deadline, and a person need not wait for it.</summary>
public sealed class StallingPeerTests : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    private readonly TestGuest _leaving = new(GuestMemory.Create(8 << 20));

    public StallingPeerTests() => _leaving.Resume();

    public void Dispose() => _leaving.Dispose();

    [Theory]
    [InlineData(MessageType.Armed)]
    [InlineData(MessageType.StateLoaded)]
    internal void Signs_of_life_are_no_answer(MessageType held)
    {
        using var destination = new ScriptedDestination();
        Task<MigrationException> moving = Move(Source(), destination.EndPoint);
        Accept(destination, held);
        long began = Environment.TickCount64;
        StayAlive(destination.Control, moving);
        MigrationException failure = moving.WaitAsync(s_patience).GetAwaiter().GetResult();
        Assert.Contains($"did not answer in time: its {held} was waited for, for 10 s.", failure.Message, StringComparison.Ordinal);
        Assert.InRange(Environment.TickCount64 - began, 8_000, 15_000);
        AssertRunsHere(failure);
    }

    [Fact]
    public void Nor_are_they_one_to_the_hello()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        Task<MigrationException> moving = Move(Source(), listener.LocalEndpoint);
        using var peer = new PeerConnection(listener.AcceptSocket());
        peer.Send(MessageType.Alive, []);
        MigrationException failure = moving.WaitAsync(s_patience).GetAwaiter().GetResult();
        Assert.Contains("does not speak Pageferry's protocol", failure.Message, StringComparison.Ordinal);
        AssertRunsHere(failure);
    }

    [Fact]
    public void A_switchover_that_is_taken_a_little_at_a_time_ends()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        using var here = new TcpClient();
        here.Connect((IPEndPoint)listener.LocalEndpoint);
        using var peer = new PeerConnection(listener.AcceptSocket()) { Patience = TimeSpan.FromMilliseconds(500) };
        using var ended = new CancellationTokenSource();
        Task reading = Task.Run(async () =>
        {
            var some = new byte[64 << 10];
            while (await here.GetStream().ReadAsync(some, ended.Token) > 0)
            {
                await Task.Delay(50, ended.Token);
            }
        });
        long began = Environment.TickCount64;
        TimeoutException late = Assert.Throws<TimeoutException>(() => peer.SendWithin(TimeSpan.FromSeconds(1), MessageType.Switchover, new byte[SwitchoverMessage.MostBytes]));
        Assert.Contains("Switchover", late.Message, StringComparison.Ordinal);
        Assert.InRange(Environment.TickCount64 - began, 900, 10_000);
        ended.Cancel();
        _ = Record.Exception(() => reading.Wait(s_patience));
    }

    [Theory]
    [InlineData(MessageType.Welcome, false)]
    [InlineData(MessageType.Armed, false)]
    [InlineData(MessageType.Armed, true)]
    [InlineData(MessageType.StateLoaded, false)]
    [InlineData(MessageType.StateLoaded, true)]
    internal void A_migration_that_waits_for_an_answer_is_cancelled_at_once(MessageType held, bool isAlive)
    {
        using var destination = new ScriptedDestination();
        using var silent = new TcpListener(IPAddress.Loopback, 0);
        silent.Start();
        MigrationSource source = Source();
        bool isLetIn = held != MessageType.Welcome;
        Task<MigrationException> moving = Move(source, isLetIn ? destination.EndPoint : silent.LocalEndpoint);
        if (isLetIn)
        {
            Accept(destination, held);
            if (isAlive)
            {
                destination.Control.Send(MessageType.Alive, []);
            }
        }

        Thread.Sleep(300);
        AssertCancels(source, moving);
        if (isLetIn)
        {
            // And its destination is told so.
            Assert.Contains("It was cancelled.", Assert.Throws<ProtocolException>(() => destination.Control.ReceiveHeader()).Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void One_that_is_not_let_in_is_cancelled_at_once()
    {
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        listener.Listen(0);
        using var queued = new TcpClient();
        queued.Connect((IPEndPoint)listener.LocalEndPoint!);
        MigrationSource source = Source();
        Task<MigrationException> moving = Move(source, listener.LocalEndPoint!);
        Thread.Sleep(300);
        AssertCancels(source, moving);
    }

    private static void StayAlive(PeerConnection connection, Task until)
    {
        while (!until.IsCompleted)
        {
            _ = Record.Exception(() => connection.Send(MessageType.Alive, []));
            Thread.Sleep(200);
        }
    }

    private static void Accept(ScriptedDestination destination, MessageType held)
    {
        destination.Accept(isArmed: held != MessageType.Armed);
        if (held == MessageType.StateLoaded)
        {
            _ = destination.Control.Receive(MessageType.Switchover, SwitchoverMessage.MostBytes);
        }
    }

    private static Task<MigrationException> Move(MigrationSource source, EndPoint destination) => Task.Run(() => Assert.Throws<MigrationException>(() => source.Run(destination)));

    private MigrationSource Source() => new(_leaving, new MigrationOptions { Mode = MigrationMode.Postcopy, Connections = 1 });

    private void AssertCancels(MigrationSource source, Task<MigrationException> moving)
    {
        long began = Environment.TickCount64;
        Assert.True(source.Cancel());
        MigrationException failure = moving.WaitAsync(s_patience).GetAwaiter().GetResult();
        Assert.InRange(Environment.TickCount64 - began, 0, 2_000);
        Assert.Contains("was cancelled", failure.Message, StringComparison.Ordinal);
        Assert.Equal(MigrationPhase.Cancelled, source.Progress.Phase);
        AssertRunsHere(failure);
    }

    private void AssertRunsHere(MigrationException failure)
    {
        Assert.False(failure.SwitchedOver);
        ulong round = _leaving.Round;
        Assert.True(SpinWait.SpinUntil(() => _leaving.Round > round, s_patience), "The guest does not run.");
        Assert.Equal(0, _leaving.Wrong);
    }
}
