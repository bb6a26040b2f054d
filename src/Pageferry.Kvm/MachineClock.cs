namespace Pageferry.Kvm;

/// <summary>A virtual machine's clock, which guests read by kvmclock: <c>struct kvm_clock_data</c>.</summary>
/// <param name="Nanoseconds">Since the virtual machine was made, or since what <see cref="VirtualMachine.SetClock"/> said.</param>
/// <param name="Flags">What of the rest is known.</param>
/// <param name="Realtime">The host's CLOCK_REALTIME in nanoseconds since 1970; valid with <see cref="ClockFlags.Realtime"/>.</param>
/// <param name="HostTsc">The host's time stamp counter; valid with <see cref="ClockFlags.HostTsc"/>.</param>
public readonly record struct MachineClock(ulong Nanoseconds, ClockFlags Flags, ulong Realtime, ulong HostTsc);
