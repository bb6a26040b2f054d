using System.Net;
using Pageferry.Memory;

namespace Pageferry.Migration.Tests;

/// <summary>Migrations that are cancelled at any moment, again and again: the guest goes on here as if nothing had been, or has gone; and moves whole in the end.</summary>
public sealed class CancelTests : IDisposable
{
    private const ulong Size = 16 << 20;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    private readonly TestCertificates _certificates = new();
    private readonly TestGuest _leaving = new(GuestMemory.Create(Size));
    private volatile TestGuest? _arrived;

    public void Dispose()
    {
        _arrived?.Dispose();
        _leaving.Dispose();
        _certificates.Dispose();
    }

    [Theory]
    [InlineData(MigrationMode.Precopy, true, 160)]
    [InlineData(MigrationMode.Auto, true, 160)]
    [InlineData(MigrationMode.Auto, false, 80)]
    [InlineData(MigrationMode.Postcopy, true, 60)]
    [InlineData(MigrationMode.Postcopy, false, 6)]
    public void The_guest_is_here_or_there_and_whole(MigrationMode mode, bool isSecured, int longestMilliseconds)
    {
        using MigrationSecurity? here = isSecured ? _certificates.Make("here") : null;
        using MigrationSecurity? there = isSecured ? _certificates.Make("there") : null;
        using var destination = new MigrationDestination(
            new IPEndPoint(IPAddress.Loopback, 0), layout => new TestGuest(GuestMemory.Create(layout.Regions), layout.GuestId), security: there);
        Task receiving = Task.Run(() => destination.Receive(guest => _arrived = (TestGuest)guest));
        _leaving.Resume();
        var random = new Random(20261126);
        int cancelled = 0;
        for (int i = 0; i < 25 && _arrived is null; i++)
        {
            var source = new MigrationSource(_leaving, new MigrationOptions { Mode = mode, DowntimeLimit = TimeSpan.FromMilliseconds(5), Connections = 1 + (i % 3), Security = here });
            MigrationException? failure = null;
            var moving = new Thread(() => failure = Record.Exception(() => source.Run(destination.EndPoint)) as MigrationException);
            moving.Start();
            Thread.Sleep(random.Next(longestMilliseconds));
            bool isCancelled = source.Cancel();
            Assert.True(moving.Join(s_patience), "A migration that was cancelled does not end.");
            Assert.Equal(isCancelled, failure is { SwitchedOver: false });
            if (isCancelled)
            {
                cancelled++;
                Assert.Equal(MigrationPhase.Cancelled, source.Progress.Phase);
                AssertRuns(_leaving);
            }
        }

        if (_leaving.IsRunning)
        {
            new MigrationSource(_leaving, new MigrationOptions { Mode = mode, DowntimeLimit = s_patience, Security = here, Validate = true }).Run(destination.EndPoint);
        }

        Assert.True(receiving.Wait(s_patience));
        TestContext.Current.TestOutputHelper?.WriteLine($"{cancelled} were cancelled.");
        AssertRuns(_arrived!);
        Assert.False(_leaving.IsRunning);
    }

    private static void AssertRuns(TestGuest guest)
    {
        ulong round = guest.Round;
        Assert.True(SpinWait.SpinUntil(() => guest.Round > round + 1, s_patience), "The guest does not run.");
        Assert.Equal(0, guest.Wrong);
    }
}
