using System.Buffers.Binary;
using System.Globalization;
using Pageferry.Linux;
using Pageferry.Testing;

namespace Pageferry.Memory.Tests;

/// <summary>A page that nobody can place: who touches it waits, and is given neither zeros nor a signal, nor a CPU to wait on.</summary>
[Collection(nameof(Alone))]
public sealed class StallTests : IClassFixture<HugePages>
{
    private const ulong HugePage = 2 << 20;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    /// <summary>Long enough to tell a wait from a loop.</summary>
    private static readonly TimeSpan s_while = TimeSpan.FromMilliseconds(200);

    public static TheoryData<FaultDelivery, bool> Barriers => new()
    {
        { FaultDelivery.Queue, true },
        { FaultDelivery.Exit, true },
        { FaultDelivery.Exit, false },
    };

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_vCPU_waits_for_a_page_whose_content_is_gone(bool hasUserfaultfd)
    {
        using var memory = GuestMemory.Create(4 * Page.Size);
        using FaultEngine engine = Start(memory, FaultDelivery.Exit, hasUserfaultfd, out TestPageSource source);
        using PageLane lane = engine.CreateLane();
        TestPageSource.Deliver(lane, 0, 4);
        if (hasUserfaultfd)
        {
            // Behind the engine's back.
            using (engine.Placing.EnterAll())
            {
                memory.DropContent(0, 1);
            }
        }
        else
        {
            engine.Stop();
        }

        int asked = 0;
        bool goesOn = true;
        bool? answer = null;
        var vcpu = new Thread(() => answer = engine.Resolve(0, () => Interlocked.Increment(ref asked) > 0 && Volatile.Read(ref goesOn)));
        vcpu.Start();
        Assert.False(vcpu.Join(s_while));
        Assert.InRange(asked, 1, 2 * (int)s_while.TotalMilliseconds);
        Assert.Equal(hasUserfaultfd, engine.Failed.IsCompleted);
        Volatile.Write(ref goesOn, false);
        Assert.True(vcpu.Join(s_patience));
        Assert.False(answer);
        source.Dispose();
    }

    [Fact]
    public void Who_waits_for_an_engine_that_has_stopped_goes_on_when_the_memory_is_given_up()
    {
        using var memory = GuestMemory.Create(4 * Page.Size);
        using FaultEngine engine = Start(memory, FaultDelivery.Exit, hasUserfaultfd: true, out TestPageSource source);
        engine.Stop();
        ulong word = 1;
        var guest = new Thread(() => word = ReadWord(memory, 1));
        guest.Start();
        Assert.False(guest.Join(s_while));
        memory.Unregister();
        Assert.True(guest.Join(s_patience));
        Assert.Equal(0UL, word);
        source.Dispose();
    }

    [Theory]
    [MemberData(nameof(Barriers))]
    public void A_huge_page_that_was_given_back_is_waited_for_where_the_host_has_no_other(FaultDelivery delivery, bool hasUserfaultfd)
    {
        using var memory = GuestMemory.Create(2 * HugePage, GuestBacking.Memfd2M);
        using FaultEngine engine = Start(memory, delivery, hasUserfaultfd, out TestPageSource source);
        using (PageLane lane = engine.CreateLane())
        {
            TestPageSource.Deliver(lane, 0, (int)memory.PageCount);
        }

        memory.Remove(0, HugePage);
        ulong word = 1;
        var guest = new Thread(() => word = ReadWord(memory, 1));
        using (TakeHugePages())
        {
            guest.Start();
            Assert.True(engine.Failed.Wait(s_patience));
            Assert.Contains("was given back, and the host has no page for it now: the kernel answered NoMemory", engine.Failed.Result.Message, StringComparison.Ordinal);
            Assert.False(guest.Join(s_while));
        }

        memory.Unregister();
        Assert.True(guest.Join(s_patience));
        Assert.Equal(0UL, word);
        source.Dispose();
    }

    [Theory]
    [MemberData(nameof(Barriers))]
    public void Content_is_not_placed_where_the_host_has_no_huge_page_for_it(FaultDelivery delivery, bool hasUserfaultfd)
    {
        using var memory = GuestMemory.Create(2 * HugePage, GuestBacking.Memfd2M);
        using FaultEngine engine = Start(memory, delivery, hasUserfaultfd, out TestPageSource source);
        using PageLane lane = engine.CreateLane();
        TestPageSource.Deliver(lane, 0, (int)memory.PageCount);
        _ = engine.Arm(0, HugePage, UserfaultSemantics.AnyAccess, ArmedContent.Drop);
        using (TakeHugePages())
        {
            TestPageSource.Deliver(lane, 0, 16);
        }

        Assert.True(engine.Failed.IsCompleted);
        Assert.Contains("the kernel answered NoMemory", engine.Failed.Result.Message, StringComparison.Ordinal);
        source.Dispose();
    }

    private static FaultEngine Start(GuestMemory memory, FaultDelivery delivery, bool hasUserfaultfd, out TestPageSource source)
    {
        source = new TestPageSource();
        var engine = new FaultEngine(memory, delivery: delivery);
        if (!hasUserfaultfd)
        {
            memory.RegisterWith(delivery, new ProtectionPlacer(memory));
        }

        engine.Start(source);
        return engine;
    }

    /// <summary>Takes all huge pages that are free, until it is disposed.</summary>
    private static MappedRegion TakeHugePages()
    {
        ulong free = Read("free_hugepages") - Read("resv_hugepages");
        return MappedRegion.MapAnonymous(free * HugePage, hugePages: true);

        static ulong Read(string what) => ulong.Parse(File.ReadAllText($"/sys/kernel/mm/hugepages/hugepages-2048kB/{what}"), CultureInfo.InvariantCulture);
    }

    private static ulong ReadWord(GuestMemory memory, ulong page)
    {
        Span<byte> word = stackalloc byte[sizeof(ulong)];
        memory.ReadAsGuest(page * Page.Size, word);
        return BinaryPrimitives.ReadUInt64LittleEndian(word);
    }
}
