namespace Pageferry.Cli;

/// <summary>What guest to run, and how.</summary>
/// <param name="Guest">A built-in guest's name or a guest image's path.</param>
/// <param name="Memory">The guest's memory.</param>
/// <param name="Vcpus">The guest's virtual CPUs.</param>
/// <param name="Backing">One of the constants of <see cref="BackingWord"/>.</param>
/// <param name="Host">One of the constants of <see cref="HostWord"/>.</param>
/// <param name="Privilege">One of the constants of <see cref="GuestPrivilegeWord"/>.</param>
/// <param name="Seed">What a built-in guest derives its contents from.</param>
/// <param name="Passes">Passes after which a built-in guest ends; 0 for never.</param>
/// <param name="DirtyTracking">One of the constants of <see cref="DirtyTrackingWord"/>.</param>
internal sealed record GuestOptions(
    string Guest, MemorySize Memory, int Vcpus, string Backing, string Host, string Privilege, ulong Seed, ulong Passes, string DirtyTracking);
