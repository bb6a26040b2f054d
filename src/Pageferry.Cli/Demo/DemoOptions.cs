namespace Pageferry.Cli;

/// <summary>What the demo is to move.</summary>
/// <param name="Guest">A built-in guest's name or a guest image's path.</param>
/// <param name="Memory">The guest's memory.</param>
/// <param name="Vcpus">The guest's virtual CPUs.</param>
/// <param name="Backing">One of the constants of <see cref="BackingWord"/>.</param>
/// <param name="Delivery">One of the constants of <see cref="DeliveryWord"/>.</param>
/// <param name="Privilege">One of the constants of <see cref="GuestPrivilegeWord"/>.</param>
/// <param name="Host">One of the constants of <see cref="HostWord"/>.</param>
/// <param name="Mode">When memory goes: <c>auto</c>, <c>precopy</c> or <c>postcopy</c>.</param>
/// <param name="DirtyTracking">One of the constants of <see cref="DirtyTrackingWord"/>.</param>
/// <param name="Report">What the names of both sides' reports are made of, an absolute path; null for none.</param>
internal sealed record DemoOptions(
    string Guest, MemorySize Memory, int Vcpus, string Backing, string Delivery, string Privilege, string Host, string Mode, string DirtyTracking, string? Report = null);
