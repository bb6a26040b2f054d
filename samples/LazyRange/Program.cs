using System.Collections.Concurrent;
using System.Text;
using Pageferry.Memory;

// 1 GiB of memory that has no content until it is touched.
using var memory = GuestMemory.Create(1UL << 30);
using var engine = new FaultEngine(memory);
var source = new GeneratedPages();
engine.Start(source);
source.DeliverTo(engine);

// Whoever touches a page waits for it, and for nothing else: here ordinary code, in KVM a vCPU.
var text = new byte[32];
memory.ReadAsGuest(123_456_789 & ~4095UL, text);
Console.WriteLine($"'{Encoding.ASCII.GetString(text).TrimEnd('\0')}', fetched {source.Fetched} of {memory.PageCount} pages");

/// <summary>A page source: here a page's content is its number; it could come from a file, a peer or an object store.</summary>
internal sealed class GeneratedPages : IPageSource
{
    private readonly BlockingCollection<ulong> _wanted = [];

    public int Fetched { get; private set; }

    // Called by the thread that reads faults: note what is wanted, and return.
    public void Request(ReadOnlySpan<ulong> pages)
    {
        foreach (ulong page in pages)
        {
            _wanted.Add(page);
        }
    }

    // A lane is the way in: it lends a buffer for the content, then places the page and wakes who waits.
    public void DeliverTo(FaultEngine engine) => new Thread(() =>
    {
        using PageLane lane = engine.CreateLane();
        foreach (ulong page in _wanted.GetConsumingEnumerable())
        {
            if (lane.Begin(page, 1, out Span<byte> content) > 0)
            {
                content.Clear();
                _ = Encoding.ASCII.GetBytes($"I am page {page}", content);
                Fetched++;
                lane.Complete();
            }
        }
    })
    { IsBackground = true }.Start();
}
