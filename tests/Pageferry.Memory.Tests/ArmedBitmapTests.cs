namespace Pageferry.Memory.Tests;

/// <summary>The bitmap of armed pages that a KVM with KVM_MEM_USERFAULT looks at. <see cref="ArmingTests"/> has it follow every arming there.</summary>
public class ArmedBitmapTests
{
    [Theory]
    [InlineData(GuestBacking.Memfd)]
    [InlineData(GuestBacking.Anonymous)]
    public void Each_region_has_bits_of_its_own_whatever_its_length(GuestBacking backing)
    {
        // 65 pages, 3 pages and 64 pages: the next region's bits begin with a word.
        using var memory = GuestMemory.Create([new(0, 65 * Page.Size), new(1 << 20, 3 * Page.Size), new(2 << 20, 64 * Page.Size)], backing);
        using var engine = new FaultEngine(memory, delivery: FaultDelivery.Exit);
        using var source = new TestPageSource();
        ArmedBitmap bitmap = engine.ShareArmed();
        Assert.Equal(bitmap.AddressOf(0) + (2 * sizeof(ulong)), bitmap.AddressOf(1));
        Assert.Equal(bitmap.AddressOf(1) + sizeof(ulong), bitmap.AddressOf(2));
        var bits = new ArmedBits(engine);
        engine.Start(source, armed: false);
        bits.AssertFollow();
        _ = engine.Arm(64 * Page.Size, Page.Size);
        _ = engine.Arm((1 << 20) + Page.Size, 2 * Page.Size);
        _ = engine.Arm((2 << 20) + (63 * Page.Size), Page.Size);
        Assert.Equal([64, 66, 67, 131], Enumerable.Range(0, (int)memory.PageCount).Where(page => bits[(ulong)page]));
        bits.AssertFollow();
        Assert.Equal(2UL, engine.Keep(66, 2));
        _ = engine.Disarm(2 << 20, 64 * Page.Size);
        Assert.Equal([64], Enumerable.Range(0, (int)memory.PageCount).Where(page => bits[(ulong)page]));
    }

    [Fact]
    public void Memory_whose_content_is_elsewhere_is_armed_from_the_beginning_and_its_bits_go_as_it_arrives()
    {
        using var memory = GuestMemory.Create(200 * Page.Size);
        using var engine = new FaultEngine(memory, delivery: FaultDelivery.Exit);
        using var source = new TestPageSource();
        var bits = new ArmedBits(engine);
        engine.Start(source);
        bits.AssertFollow();
        Assert.True(bits[199]);
        using PageLane lane = engine.CreateLane();
        TestPageSource.Deliver(lane, 10, 70);
        _ = lane.Zero(100, 50);
        bits.AssertFollow();
        Assert.False(bits[10]);
        Assert.False(bits[149]);
        _ = lane.Begin(150, 10, out _);
        memory.Remove(150 * Page.Size, 5 * Page.Size);
        Assert.True(SpinWait.SpinUntil(() => engine.Statistics.RemovedPages == 5, TimeSpan.FromSeconds(30)));
        Assert.True(bits[150], "a page that arrives is not there yet");
        lane.Abandon();
        bits.AssertFollow();
        Assert.False(bits[150]);
        Assert.True(bits[155]);
        engine.Discard(20, 5);
        bits.AssertFollow();
        Assert.True(bits[20]);
    }

    [Fact]
    public void A_page_that_is_asked_for_has_its_bit_until_it_was_placed()
    {
        const int Rounds = 200;
        using var memory = GuestMemory.Create(Page.Size);
        using var engine = new FaultEngine(memory, delivery: FaultDelivery.Exit);
        var source = new BitSource(engine);
        engine.Start(source, armed: false);
        Span<byte> word = stackalloc byte[sizeof(ulong)];
        for (int i = 0; i < Rounds; i++)
        {
            memory.WriteAsGuest(0, [(byte)i]);
            _ = engine.Arm(0, Page.Size);

            // What a vCPU does whose exit KVM made, and then once more, as one whose exit came late.
            Assert.True(engine.Resolve(0, static () => true));
            Assert.False(source.Bits[0]);
            Assert.True(engine.Resolve(0, static () => true));
            memory.ReadAsGuest(0, word);
            Assert.Equal((byte)i, word[0]);
        }

        Assert.Equal(Rounds, source.Asked);
        Assert.Equal(0, source.Clear);
        Assert.Throws<InvalidOperationException>(() => engine.ShareArmed());
    }

    private sealed class BitSource(FaultEngine engine) : IPageSource
    {
        public ArmedBits Bits { get; } = new(engine);

        public int Asked { get; private set; }

        public int Clear { get; private set; }

        public void Request(ReadOnlySpan<ulong> pages)
        {
            Asked++;
            Clear += Bits[pages[0]] ? 0 : 1;
            _ = engine.Keep(pages[0], 1);
        }
    }
}
