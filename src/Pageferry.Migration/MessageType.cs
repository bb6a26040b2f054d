namespace Pageferry.Migration;

/// <summary>What a frame carries. The numbers stand in the protocol; docs/protocol.md describes each.</summary>
internal enum MessageType : ushort
{
    /// <summary>Source → destination, first on every connection.</summary>
    Hello = 1,

    /// <summary>Destination → source: the connection is accepted.</summary>
    Welcome = 2,

    /// <summary>Either way: the sender parts, and says why.</summary>
    Error = 3,

    /// <summary>Either way, when nothing else was sent for a while: the sender is there.</summary>
    Alive = 4,

    /// <summary>Source → destination: what the guest's memory looks like.</summary>
    Layout = 16,

    /// <summary>Destination → source: the memory is mapped and armed.</summary>
    Armed = 17,

    /// <summary>Source → destination: the guest has stopped; this is all of it beside memory, and the pages that are out of date.</summary>
    Switchover = 18,

    /// <summary>Destination → source: the state is loaded, the pages are armed, the guest could start.</summary>
    StateLoaded = 19,

    /// <summary>Source → destination: the switchover. The source never resumes the guest from here on.</summary>
    Start = 20,

    /// <summary>Destination → source: the guest has executed.</summary>
    Running = 21,

    /// <summary>Destination → source: every page is here.</summary>
    Complete = 22,

    /// <summary>Source → destination: the source forgets the guest.</summary>
    Released = 23,

    /// <summary>Destination → source: a round of pre-copy is here, on all connections.</summary>
    RoundDone = 24,

    /// <summary>Source → destination: pages that are out of date, before the guest stops.</summary>
    Discard = 25,

    /// <summary>Destination → source: they are armed.</summary>
    Discarded = 26,

    /// <summary>Destination → source: the digests of pages as they arrived.</summary>
    Digests = 27,

    /// <summary>Destination → source, on a new link: pages that are missing.</summary>
    Missing = 28,

    /// <summary>Destination → source, on a new link: those were all, and whether the guest was let run.</summary>
    Found = 29,

    /// <summary>Source → destination: drop the guest, which goes back to the switchover; answered by <see cref="Found"/>.</summary>
    Fence = 30,

    /// <summary>Destination → source, demand connection: pages the guest waits for.</summary>
    PageRequest = 32,

    /// <summary>Source → destination: up to 64 neighbouring pages, with their content or as zero.</summary>
    Pages = 33,

    /// <summary>Source → destination: a run of pages that are zero.</summary>
    ZeroPages = 34,

    /// <summary>Source → destination, background connection: every page has been sent, here or on demand.</summary>
    BackgroundDone = 35,

    /// <summary>Destination → source, demand connection: pages that arrived damaged.</summary>
    Resend = 36,

    /// <summary>Source → destination, background connection: the end of a round of pre-copy.</summary>
    Barrier = 37,
}
