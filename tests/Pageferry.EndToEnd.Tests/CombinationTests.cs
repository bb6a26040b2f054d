using System.Globalization;
using System.Net;
using Pageferry.Memory;
using Pageferry.Migration;
using Pageferry.Migration.Tests;
using Pageferry.Vmm;

namespace Pageferry.EndToEnd.Tests;

/// <summary>
/// What a migration can be made of, in all pairs: a guest that checks its memory itself moves within this process, and the digest of each page is compared at
/// the end.
/// </summary>
public sealed class CombinationTests : IDisposable
{
    private const ulong MemoryBytes = 32 << 20;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    /// <summary>The factors and their values. Userfaults can't be had on a guest_memfd, so none arrives there.</summary>
    private static readonly string[][] s_factors =
    [
        [.. Enum.GetNames<MigrationMode>()],
        [.. Enum.GetNames<GuestBacking>()],
        [.. Enum.GetNames<GuestBacking>().Where(name => name != nameof(GuestBacking.GuestMemfd))],
        [.. Enum.GetNames<FaultDelivery>()],
        [.. Enum.GetNames<MigrationCompression>()],
        ["plain", "tls"],
        ["1", "4"],
        ["1", "2"],
        [.. Enum.GetNames<MachineHost>()],
        [nameof(DirtyTracking.Log), nameof(DirtyTracking.Ring), nameof(DirtyTracking.Scan)],
    ];

    private readonly HugePages _hugePages = new();
    private readonly TestCertificates _certificates = new();

    public static TheoryData<string> Rows => [.. PairwiseTable.Rows(s_factors, IsPossible).Select(row => string.Join(' ', row))];

    public void Dispose()
    {
        _certificates.Dispose();
        _hugePages.Dispose();
    }

    [Fact]
    public void The_table_has_every_pair_in_few_rows()
    {
        List<string[]> rows = PairwiseTable.Rows(s_factors, IsPossible);
        List<(int, int, int, int)> missing = [.. PairwiseTable.Pairs(s_factors).Where(pair => !rows.Exists(
            row => row[pair.FirstFactor] == s_factors[pair.FirstFactor][pair.First] && row[pair.SecondFactor] == s_factors[pair.SecondFactor][pair.Second]))];

        // Of hosts and what tracks writes three pairs can't be.
        Assert.Equal(3, missing.Count);
        Assert.All(missing, pair => Assert.Equal((8, 9), (pair.Item1, pair.Item3)));
        Assert.InRange(rows.Count, 12, 24);
    }

    /// <summary>KVM's log and ring are for what KVM runs, the scan is for threads.</summary>
    private static bool IsPossible(string[] row) => (row[8] == nameof(MachineHost.Kvm)) == (row[9] != nameof(DirtyTracking.Scan));

    [Fact]
    public void A_table_leaves_out_what_can_not_be()
    {
        string[][] factors = [["a", "b"], ["c", "d"], ["e", "f"]];
        List<string[]> rows = PairwiseTable.Rows(factors, row => row is not ["a", "c", _]);
        Assert.DoesNotContain(rows, row => row is ["a", "c", _]);
        Assert.Equal(11, PairwiseTable.Pairs(factors).Count(pair => rows.Exists(row =>
            row[pair.FirstFactor] == factors[pair.FirstFactor][pair.First] && row[pair.SecondFactor] == factors[pair.SecondFactor][pair.Second])));
    }

    [Theory]
    [MemberData(nameof(Rows))]
    public void A_guest_that_checks_itself_moves(string row)
    {
        string[] values = row.Split(' ');
        MigrationMode mode = Enum.Parse<MigrationMode>(values[0]);
        GuestBacking from = Enum.Parse<GuestBacking>(values[1]);
        GuestBacking to = Enum.Parse<GuestBacking>(values[2]);
        FaultDelivery delivery = Enum.Parse<FaultDelivery>(values[3]);
        int vcpus = int.Parse(values[7], CultureInfo.InvariantCulture);
        MachineHost host = Enum.Parse<MachineHost>(values[8]);
        if (host == MachineHost.Kvm || from == GuestBacking.GuestMemfd)
        {
            KvmDevice.SkipIfMissing();
        }

        using MigrationSecurity? here = values[5] == "tls" ? _certificates.Make("here") : null;
        using MigrationSecurity? there = values[5] == "tls" ? _certificates.Make("there") : null;

        DirtyTracking tracking = Enum.Parse<DirtyTracking>(values[9]);
        using var configured = MakeMachine(host, new MachineConfiguration(MemoryBytes, vcpus, from, DirtyTracking: tracking));
        configured.Start();
        Assert.True(SpinWait.SpinUntil(() => configured.Progress.Passes > 0, s_patience));
        ArrivingMachine? arrived = null;
        using var destination = new MigrationDestination(
            new IPEndPoint(IPAddress.Loopback, 0), layout => new ArrivingMachine(MakeEmpty(host, GuestMemory.Create(layout.Regions, to), vcpus, delivery)), security: there);
        Task receiving = Task.Run(() => destination.Receive(guest => arrived = (ArrivingMachine)guest));
        var source = new MigrationSource(new LeavingMachine(configured), new MigrationOptions
        {
            Mode = mode,
            DowntimeLimit = mode == MigrationMode.Precopy ? s_patience : TimeSpan.FromMilliseconds(30),
            Compression = Enum.Parse<MigrationCompression>(values[4]),
            Connections = int.Parse(values[6], CultureInfo.InvariantCulture),
            Security = here,
            Validate = true,
        });
        source.Run(destination.EndPoint);
        Assert.True(receiving.Wait(s_patience));
        using ArrivingMachine guest = arrived!;
        TestContext.Current.TestOutputHelper?.WriteLine($"{string.Join('\n', source.Decisions)}\n{source.Progress}");
        Assert.True(SpinWait.SpinUntil(() => guest.Machine.Progress.PassesHere > 1 || guest.Machine.Progress.Failure is not null, s_patience));
        MachineProgress progress = guest.Machine.Progress;
        Assert.Null(progress.Failure);
        Assert.Equal(0UL, progress.PagesWrong);
        Assert.Equal(mode != MigrationMode.Precopy, source.Progress.PagesDemand + source.Progress.PagesBackground > 0 || mode == MigrationMode.Auto);
    }

    private static IMachine MakeMachine(MachineHost host, MachineConfiguration configuration) =>
        host == MachineHost.Kvm ? KvmMachine.Create(configuration, GuestImage.Find("stamp")) : ThreadMachine.Create(configuration, "stamp");

    private static IMachine MakeEmpty(MachineHost host, GuestMemory memory, int vcpus, FaultDelivery delivery)
    {
        IMachine machine = host == MachineHost.Kvm ? KvmMachine.Create(memory, vcpus) : ThreadMachine.Create(memory, vcpus);
        machine.Engine = new FaultEngine(memory, delivery: delivery);
        return machine;
    }
}
