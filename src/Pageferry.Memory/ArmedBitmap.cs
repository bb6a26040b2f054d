using System.Runtime.InteropServices;
using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>Which pages of a guest's memory are armed, a bit each in native memory, for a kernel that looks there (<c>KVM_MEM_USERFAULT</c>).</summary>
/// <remarks>
/// A bit follows the state of its page. It is set before the page is hidden, and cleared after it was placed, with release semantics: who sees it cleared sees
/// the content. In between a vCPU may exit for a page that is there already.
/// </remarks>
public sealed class ArmedBitmap : IDisposable
{
    private const int PagesPerWord = 64;

    private readonly FaultEngine _engine;
    private readonly MappedRegion _words;

    /// <summary>Where each region's bits begin, in words.</summary>
    private readonly ulong[] _firstWords;

    /// <summary>Held while bits are made to agree with states: so the last to do it has seen the last state. A spin lock makes no event to wait for.</summary>
    private SpinLock _lock = new(enableThreadOwnerTracking: false);

    internal ArmedBitmap(FaultEngine engine)
    {
        _engine = engine;
        IReadOnlyList<GuestRegion> regions = engine.Memory.Regions;
        _firstWords = new ulong[regions.Count];
        ulong words = 0;
        for (int i = 0; i < regions.Count; i++)
        {
            _firstWords[i] = words;
            words += ((regions[i].Length / Page.Size) + PagesPerWord - 1) / PagesPerWord;
        }

        _words = MappedRegion.MapAnonymous(words * sizeof(ulong));
    }

    /// <summary>Where the bits of a region are: 64-bit words, bit 0 of the first for the region's first page.</summary>
    /// <param name="region">Which of <see cref="GuestMemory.Regions"/>.</param>
    /// <returns>The address in this process, valid until the engine is disposed.</returns>
    public ulong AddressOf(int region) => _words.Address + (_firstWords[region] * sizeof(ulong));

    /// <summary>Frees the bits; no kernel looks at them any more.</summary>
    public void Dispose() => _words.Dispose();

    /// <summary>Makes the bits of a run of pages agree with their states; called after each change of these.</summary>
    internal void Follow(ulong page, ulong count)
    {
        ulong unit = _engine.Memory.FaultPages;
        bool taken = false;
        try
        {
            _lock.Enter(ref taken);
            for (ulong first = _engine.Memory.FaultPageOf(page); first < page + count; first += unit)
            {
                bool isArmed = _engine.IsArmedAt(first);
                for (ulong at = first; at < first + unit; at++)
                {
                    Set(at, isArmed);
                }
            }
        }
        finally
        {
            if (taken)
            {
                _lock.Exit();
            }
        }
    }

    private void Set(ulong page, bool isArmed)
    {
        (int region, ulong within) = _engine.Memory.Locate(page);
        ref ulong word = ref MemoryMarshal.AsRef<ulong>(_words.Span((_firstWords[region] + (within / PagesPerWord)) * sizeof(ulong), sizeof(ulong)));
        ulong bit = 1UL << (int)(within % PagesPerWord);
        ulong changed = isArmed ? word | bit : word & ~bit;
        if (changed != word)
        {
            Volatile.Write(ref word, changed);
        }
    }
}
