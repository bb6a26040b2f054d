using System.Buffers.Binary;
using Pageferry.Testing;

namespace Pageferry.Memory.Tests;

/// <summary>The userfault attribute, with threads that touch memory as a guest does.</summary>
public class ArmingTests(HugePages hugePages) : IClassFixture<HugePages>
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    /// <summary>Every kind of memory, and how its faults arrive.</summary>
    public static TheoryData<GuestBacking, Barrier> Memories => new()
    {
        { GuestBacking.Memfd, Barrier.Queue },
        { GuestBacking.Memfd, Barrier.Exit },
        { GuestBacking.Memfd, Barrier.Protection },
        { GuestBacking.Anonymous, Barrier.Queue },
        { GuestBacking.Anonymous, Barrier.Exit },
        { GuestBacking.Memfd2M, Barrier.Queue },
        { GuestBacking.Memfd2M, Barrier.Exit },
        { GuestBacking.Memfd2M, Barrier.Protection },
        { GuestBacking.Memfd, Barrier.Bitmap },
        { GuestBacking.Anonymous, Barrier.Bitmap },
        { GuestBacking.Memfd2M, Barrier.Bitmap },
    };

    /// <summary>What stops the guest.</summary>
    public enum Barrier
    {
        Queue,
        Exit,
        Protection,

        /// <summary>Exits that KVM makes by a bitmap, of which these tests see the bits.</summary>
        Bitmap,
    }

    [Theory]
    [MemberData(nameof(Memories))]
    public void A_used_page_that_is_armed_is_a_userfault_and_keeps_its_content(GuestBacking backing, Barrier barrier)
    {
        using Bench bench = Use(backing, barrier, units: 4);
        bench.Write(1, 77);
        Assert.Equal(0UL, bench.Engine.Arm(bench.Unit, bench.Unit));
        Assert.True(bench.Engine.IsArmed(bench.Unit));
        Assert.False(bench.Engine.IsArmed(0));
        Touch touch = bench.Touch(1);
        Assert.True(SpinWait.SpinUntil(() => bench.Source.Requested.Count > 0, s_patience));
        Assert.Equal(bench.PageOf(1), bench.Source.Requested.Min());
        Assert.False(touch.IsThrough(50));

        Assert.Equal(bench.PagesPerUnit, bench.Engine.Keep(bench.PageOf(1), bench.PagesPerUnit));
        Assert.Equal(77UL, touch.Word());
        Assert.Equal(77UL, bench.Read(1));
        Assert.Equal((int)bench.PagesPerUnit, bench.Source.Requested.Count);
        Assert.Equal(0, bench.Engine.UnknownPages);
    }

    [Theory]
    [MemberData(nameof(Memories))]
    public void Content_that_arrives_for_an_armed_page_replaces_what_it_had(GuestBacking backing, Barrier barrier)
    {
        using Bench bench = Use(backing, barrier, units: 2);
        bench.Write(0, 77);
        _ = bench.Engine.Arm(0, bench.Unit);
        Touch touch = bench.Touch(0);
        Assert.True(SpinWait.SpinUntil(() => bench.Source.Requested.Count > 0, s_patience));
        TestPageSource.Deliver(bench.Lane, 0, (int)bench.PagesPerUnit);
        Assert.Equal(TestPageSource.WordOf(0), touch.Word());
        bench.Write(0, 78);
        Assert.Equal(78UL, bench.Read(0));
    }

    [Theory]
    [MemberData(nameof(Memories))]
    public void Disarming_lets_who_waits_go_on_with_the_content_that_was_kept(GuestBacking backing, Barrier barrier)
    {
        using Bench bench = Use(backing, barrier, units: 3);
        bench.Write(0, 10);
        bench.Write(2, 12);
        _ = bench.Engine.Arm(0, 3 * bench.Unit);
        Touch touch = bench.Touch(2);
        Assert.True(SpinWait.SpinUntil(() => bench.Source.Requested.Count > 0, s_patience));
        _ = bench.Engine.Disarm(0, 3 * bench.Unit);
        Assert.Equal(12UL, touch.Word());
        Assert.Equal(10UL, bench.Read(0));
        Assert.Equal(0UL, bench.Read(1));
        Assert.Equal((int)bench.PagesPerUnit, bench.Source.Requested.Count);
        Assert.False(bench.Engine.IsArmed(0));
        Assert.False(bench.Engine.Failed.IsCompleted);
    }

    [Theory]
    [MemberData(nameof(Memories))]
    public void What_was_disarmed_keeps_its_content_when_the_engine_ends(GuestBacking backing, Barrier barrier)
    {
        using Bench bench = Use(backing, barrier, units: 4);
        bench.Write(0, 10);
        bench.Write(3, 13);
        _ = bench.Engine.Arm(0, 4 * bench.Unit);
        _ = bench.Engine.Disarm(0, 4 * bench.Unit);
        Assert.Equal(13UL, bench.Read(3));
        bench.Engine.Stop();
        bench.Engine.Memory.Unregister();
        Assert.Equal(10UL, bench.Read(0));
        Assert.Equal(0UL, bench.Read(1));
        Assert.Equal(13UL, bench.Read(3));
    }

    [Theory]
    [MemberData(nameof(Memories))]
    public void Content_that_is_dropped_is_gone(GuestBacking backing, Barrier barrier)
    {
        using Bench bench = Use(backing, barrier, units: 2);
        bench.Write(0, 10);
        bench.Write(1, 11);
        _ = bench.Engine.Arm(0, bench.Unit, content: ArmedContent.Drop);
        _ = bench.Engine.Disarm(0, bench.Unit);
        Assert.Equal(0UL, bench.Read(0));
        Assert.Equal(11UL, bench.Read(1));
    }

    [Theory]
    [MemberData(nameof(Memories))]
    public void First_access_arms_what_was_never_populated_and_counts_the_rest(GuestBacking backing, Barrier barrier)
    {
        using Bench bench = Use(backing, barrier, units: 8);
        bench.Write(1, 11);
        bench.Write(5, 15);
        Assert.Equal(2 * bench.PagesPerUnit, bench.Engine.Arm(0, 8 * bench.Unit, UserfaultSemantics.FirstAccess));
        Assert.Equal(11UL, bench.Read(1));
        Assert.Equal(15UL, bench.Read(5));
        Assert.Empty(bench.Source.Requested);
        Touch touch = bench.Touch(2);
        Assert.True(SpinWait.SpinUntil(() => bench.Source.Requested.Count > 0, s_patience));
        Assert.Equal(bench.PageOf(2), bench.Source.Requested.Min());
        TestPageSource.Deliver(bench.Lane, bench.PageOf(2), (int)bench.PagesPerUnit);
        Assert.Equal(TestPageSource.WordOf(bench.PageOf(2)), touch.Word());
        Assert.Equal(3 * bench.PagesPerUnit, bench.Engine.Arm(0, 8 * bench.Unit, UserfaultSemantics.FirstAccess));
    }

    [Theory]
    [MemberData(nameof(Memories))]
    public void What_is_kept_accessible_is_never_armed_or_hidden(GuestBacking backing, Barrier barrier)
    {
        using Bench bench = Use(backing, barrier, units: 4);
        Assert.True(bench.Engine.KeepAccessible(bench.Unit, static () => true));
        bool over = false;
        long hidden = 0;
        var kernel = new Thread(() =>
        {
            // As KVM reads a page table: by the guest view, and a failure is not told to anybody who could resolve it.
            Span<byte> word = stackalloc byte[sizeof(ulong)];
            while (!Volatile.Read(ref over))
            {
                hidden += bench.Engine.Memory.GuestView.TryCopyOut(bench.Unit, word) == word.Length ? 0 : 1;
            }
        });
        kernel.Start();
        for (int round = 0; round < 200; round++)
        {
            UserfaultSemantics semantics = round % 2 == 0 ? UserfaultSemantics.FirstAccess : UserfaultSemantics.AnyAccess;
            Assert.Equal(bench.PagesPerUnit, bench.Engine.Arm(0, 4 * bench.Unit, semantics));
            _ = bench.Engine.Disarm(0, 4 * bench.Unit);
        }

        Volatile.Write(ref over, true);
        Assert.True(kernel.Join(s_patience));
        Assert.Equal(0, hidden);
        Assert.False(bench.Engine.IsArmed(bench.Unit));
        Assert.Empty(bench.Source.Requested);
    }

    [Theory]
    [MemberData(nameof(Memories))]
    public void Once_armed_the_next_touch_is_a_userfault_however_busy_the_page_is(GuestBacking backing, Barrier barrier)
    {
        const int Rounds = 200;
        using Bench bench = Use(backing, barrier, units: 1);
        bench.Write(0, 5);
        bool over = false;
        long wrong = 0;
        Thread[] touchers = [.. Enumerable.Range(0, 2).Select(_ => new Thread(() =>
        {
            while (!Volatile.Read(ref over))
            {
                wrong += bench.Read(0) == 5 ? 0 : 1;
            }
        }))];
        Array.ForEach(touchers, toucher => toucher.Start());
        int round = 0;
        int before = 0;
        bool faulted = true;
        for (; round < Rounds && faulted; round++)
        {
            before = bench.Source.Requested.Count;
            _ = bench.Engine.Arm(0, bench.Unit);
            faulted = SpinWait.SpinUntil(() => bench.Source.Requested.Count > before, s_patience);
            _ = bench.Engine.Keep(0, bench.PagesPerUnit);
        }

        Volatile.Write(ref over, true);
        Assert.All(touchers, toucher => Assert.True(toucher.Join(s_patience)));
        Assert.True(faulted, $"no userfault in round {round - 1}: {bench.Engine.States[0]}, {bench.Engine.Failed.IsCompleted}");
        Assert.Equal(0, wrong);
    }

    [Theory]
    [MemberData(nameof(Memories))]
    public void Arming_and_disarming_against_readers_writers_and_answers_loses_nothing(GuestBacking backing, Barrier barrier)
    {
        const ulong Units = 16;
        using Bench bench = Use(backing, barrier, Units);
        for (ulong unit = 0; unit < Units; unit++)
        {
            bench.Write(unit, unit << 32);
        }

        var keeper = new Keeper(bench);
        bool over = false;
        string? wrong = null;
        Thread[] owners = [.. Enumerable.Range(0, 3).Select(owner => new Thread(() =>
        {
            // Each owns the units of a residue: what it wrote last is what it finds.
            var random = new Random(owner);
            var counts = new ulong[Units];
            while (!Volatile.Read(ref over))
            {
                ulong unit = (((ulong)random.Next() % (Units / 3)) * 3) + (ulong)owner;
                ulong expected = (unit << 32) | counts[unit];
                ulong found = bench.Read(unit);
                wrong ??= found == expected ? null : $"unit {unit}: expected {expected:x}, found {found:x}";
                bench.Write(unit, (unit << 32) | ++counts[unit]);
            }
        }))];
        Thread[] armers = [.. Enumerable.Range(0, 2).Select(seed => new Thread(() =>
        {
            var random = new Random(100 + seed);
            for (int i = 0; i < 400; i++)
            {
                ulong first = (ulong)random.Next() % Units;
                ulong count = 1 + ((ulong)random.Next() % (Units - first));
                if (random.Next(3) > 0)
                {
                    _ = bench.Engine.Arm(first * bench.Unit, count * bench.Unit);
                }
                else
                {
                    _ = bench.Engine.Disarm(first * bench.Unit, count * bench.Unit);
                }
            }
        }))];
        Array.ForEach(owners, thread => thread.Start());
        Array.ForEach(armers, thread => thread.Start());
        Assert.All(armers, thread => Assert.True(thread.Join(s_patience)));
        Volatile.Write(ref over, true);
        Assert.All(owners, thread => Assert.True(thread.Join(s_patience)));
        keeper.Dispose();
        Assert.Null(wrong);
        Assert.False(bench.Engine.Failed.IsCompleted);
        _ = bench.Engine.Disarm(0, Units * bench.Unit);
        Assert.Equal(0, bench.Engine.UnknownPages);
    }

    [Fact]
    public void A_range_that_makes_no_sense_is_refused_and_nothing_changes()
    {
        using var memory = GuestMemory.Create([new(0, 8 * Page.Size), new(1 << 20, 4 * Page.Size)]);
        using var engine = new FaultEngine(memory);
        using var source = new TestPageSource();
        Assert.Throws<InvalidOperationException>(() => engine.Arm(0, Page.Size));
        engine.Start(source, armed: false);
        Assert.Contains("units of 4096", Assert.Throws<ArgumentException>(() => engine.Arm(1, Page.Size)).Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentException>(() => engine.Arm(0, 100));
        Assert.Throws<ArgumentException>(() => engine.Arm(0, 0));
        Assert.Throws<ArgumentOutOfRangeException>(() => engine.Arm(0, 9 * Page.Size));
        Assert.Throws<ArgumentOutOfRangeException>(() => engine.Arm(4 * Page.Size, 1UL << 30));
        Assert.Throws<ArgumentOutOfRangeException>(() => engine.Arm(1 << 16, Page.Size));
        Assert.Throws<ArgumentOutOfRangeException>(() => engine.Arm(ulong.MaxValue & ~4095UL, Page.Size));
        Assert.Throws<ArgumentOutOfRangeException>(() => engine.Arm(0, ulong.MaxValue & ~4095UL));
        Assert.Throws<ArgumentOutOfRangeException>(() => engine.Arm(0, Page.Size, (UserfaultSemantics)7));
        Assert.Throws<ArgumentOutOfRangeException>(() => engine.Arm(0, Page.Size, content: (ArmedContent)7));
        Assert.Throws<ArgumentOutOfRangeException>(() => engine.Disarm(0, 9 * Page.Size));
        Assert.Equal(12UL, engine.States.CountRun(0, 12, PageState.Zero));
        Assert.Equal(0, engine.UnknownPages);
        Assert.Equal(0UL, engine.Arm(1 << 20, 4 * Page.Size));
        Assert.Equal(4, engine.UnknownPages);
    }

    [Fact]
    public void Huge_pages_are_armed_whole()
    {
        _ = hugePages;
        Assert.Throws<ArgumentException>(() => GuestMemory.Create(Page.Size, GuestBacking.Memfd2M));
        using Bench bench = Use(GuestBacking.Memfd2M, Barrier.Queue, units: 2);
        Assert.Contains("units of 2097152", Assert.Throws<ArgumentException>(() => bench.Engine.Arm(Page.Size, bench.Unit)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Memory_that_another_userfaultfd_has_is_refused()
    {
        using var memory = GuestMemory.Create(Page.Size);
        using var owner = Linux.Userfaultfd.Open(Linux.UserfaultfdFeatures.MissingShmem);
        _ = owner.Register(memory.GuestViewAddress(0), Page.Size, Linux.UserfaultfdModes.Missing);
        using var engine = new FaultEngine(memory);
        using var source = new TestPageSource();
        Linux.LinuxException refusal = Assert.Throws<Linux.LinuxException>(() => engine.Start(source));
        Assert.Equal(Linux.Errno.EBUSY, refusal.Errno);
    }

    [Fact]
    public void Without_userfaultfd_anonymous_memory_is_refused()
    {
        using var memory = GuestMemory.Create(Page.Size, GuestBacking.Anonymous);
        Assert.Contains("host view", Assert.Throws<ArgumentException>(() => new ProtectionPlacer(memory)).Message, StringComparison.Ordinal);
    }

    private static Bench Use(GuestBacking backing, Barrier barrier, ulong units) => new(backing, barrier, units);

    /// <summary>Memory of which nothing is armed yet.</summary>
    private sealed class Bench : IDisposable
    {
        private readonly GuestMemory _memory;

        public Bench(GuestBacking backing, Barrier barrier, ulong units)
        {
            PagesPerUnit = backing == GuestBacking.Memfd2M ? 512UL : 1;
            _memory = GuestMemory.Create(units * Unit, backing);
            FaultDelivery delivery = barrier == Barrier.Queue ? FaultDelivery.Queue : FaultDelivery.Exit;
            if (barrier == Barrier.Protection)
            {
                _memory.RegisterWith(delivery, new ProtectionPlacer(_memory));
            }

            Engine = new FaultEngine(_memory, delivery: delivery);
            Bits = barrier == Barrier.Bitmap ? new ArmedBits(Engine) : null;
            Engine.Start(Source, armed: false);
            Lane = Engine.CreateLane();
        }

        public FaultEngine Engine { get; }

        /// <summary>Null without a bitmap.</summary>
        public ArmedBits? Bits { get; }

        public TestPageSource Source { get; } = new();

        public PageLane Lane { get; }

        public ulong PagesPerUnit { get; }

        public ulong Unit => PagesPerUnit * Page.Size;

        public ulong PageOf(ulong unit) => unit * PagesPerUnit;

        public ulong Read(ulong unit)
        {
            Span<byte> word = stackalloc byte[sizeof(ulong)];
            _memory.ReadAsGuest(unit * Unit, word);
            return BinaryPrimitives.ReadUInt64LittleEndian(word);
        }

        public void Write(ulong unit, ulong value)
        {
            Span<byte> word = stackalloc byte[sizeof(ulong)];
            BinaryPrimitives.WriteUInt64LittleEndian(word, value);
            _memory.WriteAsGuest(unit * Unit, word);
        }

        public Touch Touch(ulong unit) => new(() => Read(unit));

        public void Dispose()
        {
            Bits?.AssertFollow();
            Lane.Dispose();
            Engine.Dispose();
            Source.Dispose();
            _memory.Dispose();
        }
    }

    private sealed class Touch
    {
        private readonly Thread _thread;
        private ulong _word;

        public Touch(Func<ulong> read)
        {
            _thread = new Thread(() => _word = read()) { IsBackground = true };
            _thread.Start();
        }

        public bool IsThrough(int milliseconds) => _thread.Join(milliseconds);

        public ulong Word()
        {
            Assert.True(_thread.Join(s_patience));
            return _word;
        }
    }

    /// <summary>Answers every request with the content that the page has.</summary>
    private sealed class Keeper : IDisposable
    {
        private readonly Thread _thread;
        private bool _over;

        public Keeper(Bench bench)
        {
            _thread = new Thread(() =>
            {
                var random = new Random(7);
                while (!Volatile.Read(ref _over))
                {
                    ulong page = (ulong)random.NextInt64((long)bench.Engine.States.PageCount);
                    if (bench.Engine.States[page] == PageState.Requested)
                    {
                        _ = bench.Engine.Keep(page & ~(bench.PagesPerUnit - 1), bench.PagesPerUnit);
                    }
                }
            });
            _thread.Start();
        }

        public void Dispose()
        {
            Volatile.Write(ref _over, true);
            _thread.Join();
        }
    }
}
