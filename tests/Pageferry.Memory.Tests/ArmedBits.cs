namespace Pageferry.Memory.Tests;

/// <summary>An engine's bitmap of armed pages, read by the kernel from where it would read it.</summary>
internal sealed class ArmedBits
{
    private readonly FaultEngine _engine;
    private readonly ArmedBitmap _bitmap;

    public ArmedBits(FaultEngine engine)
    {
        _engine = engine;
        _bitmap = engine.ShareArmed();
    }

    /// <summary>Whether the bit of a page is set.</summary>
    public bool this[ulong page]
    {
        get
        {
            ulong gpa = _engine.Memory.GpaOf(page);
            int region = Enumerable.Range(0, _engine.Memory.Regions.Count).First(i => gpa - _engine.Memory.Regions[i].Gpa < _engine.Memory.Regions[i].Length);
            ulong bit = (gpa - _engine.Memory.Regions[region].Gpa) / Page.Size;
            using FileStream memory = File.OpenRead("/proc/self/mem");
            memory.Position = (long)(_bitmap.AddressOf(region) + (bit / 64 * sizeof(ulong)));
            Span<byte> word = stackalloc byte[sizeof(ulong)];
            memory.ReadExactly(word);
            return ((BitConverter.ToUInt64(word) >> (int)(bit % 64)) & 1) != 0;
        }
    }

    /// <summary>Fails unless the set bits are those of the armed pages; at rest.</summary>
    public void AssertFollow()
    {
        for (ulong page = 0; page < _engine.Memory.PageCount; page++)
        {
            Assert.True(_engine.IsArmed(_engine.Memory.GpaOf(page)) == this[page], $"page {page} is {_engine.States[page]}, and its bit is {this[page]}");
        }
    }
}
