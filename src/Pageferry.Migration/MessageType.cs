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

    /// <summary>Source → destination: what the guest's memory looks like.</summary>
    Layout = 16,

    /// <summary>Destination → source: the memory is mapped and armed.</summary>
    Armed = 17,

    /// <summary>Source → destination: the guest has stopped; this is all of it beside memory.</summary>
    MachineState = 18,

    /// <summary>Destination → source: the state is loaded, the guest could start.</summary>
    StateLoaded = 19,

    /// <summary>Source → destination: the switchover. The source never resumes the guest from here on.</summary>
    Start = 20,

    /// <summary>Destination → source: the guest has executed.</summary>
    Running = 21,

    /// <summary>Destination → source: every page is here.</summary>
    Complete = 22,

    /// <summary>Source → destination: the source forgets the guest.</summary>
    Released = 23,

    /// <summary>Destination → source, demand connection: pages the guest waits for.</summary>
    PageRequest = 32,

    /// <summary>Source → destination: a run of pages with their content.</summary>
    Pages = 33,

    /// <summary>Source → destination: a run of pages that are zero.</summary>
    ZeroPages = 34,

    /// <summary>Source → destination, background connection: every page has been sent, here or on demand.</summary>
    BackgroundDone = 35,
}
