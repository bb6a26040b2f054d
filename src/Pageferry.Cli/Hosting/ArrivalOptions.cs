using Pageferry.Memory;
using Pageferry.Vmm;

namespace Pageferry.Cli;

/// <summary>How a guest is taken in.</summary>
/// <param name="Backing">What is to hold its memory; null for what held it at the source.</param>
/// <param name="Delivery">How its userfaults are delivered.</param>
/// <param name="DirtyTracking">What is to tell which pages it writes, if KVM runs it.</param>
internal sealed record ArrivalOptions(GuestBacking? Backing, FaultDelivery Delivery, DirtyTracking DirtyTracking);
