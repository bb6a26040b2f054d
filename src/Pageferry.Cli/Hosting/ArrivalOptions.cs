using Pageferry.Memory;
using Pageferry.Migration;
using Pageferry.Vmm;

namespace Pageferry.Cli;

/// <summary>How a guest is taken in.</summary>
/// <param name="Backing">What is to hold its memory; null for what held it at the source.</param>
/// <param name="Delivery">How its userfaults are delivered.</param>
/// <param name="DirtyTracking">What is to tell which pages it writes, if KVM runs it.</param>
/// <param name="Security">Who this side is and whom it trusts; null for connections without TLS.</param>
/// <param name="InsecureNetwork">Whether to listen beyond loopback without TLS.</param>
/// <param name="ReconnectFor">How long a source that was lost after the switchover is waited for.</param>
/// <param name="LinkTimeout">How long a connection may be silent after the switchover.</param>
/// <param name="StallWarning">How long a userfault may wait before it is reported.</param>
/// <param name="Report">Where a report of each arrival goes, also of one that fails; null for none.</param>
internal sealed record ArrivalOptions(
    GuestBacking? Backing,
    FaultDelivery Delivery,
    DirtyTracking DirtyTracking,
    MigrationSecurity? Security,
    bool InsecureNetwork,
    TimeSpan ReconnectFor,
    TimeSpan LinkTimeout,
    TimeSpan StallWarning,
    ReportFile? Report);
