namespace Pageferry.Vmm;

/// <summary>The ports that a guest talks to the VMM through.</summary>
public static class GuestPort
{
    /// <summary>A byte written is console output.</summary>
    public const ushort Console = 0xE9;

    /// <summary>A 32-bit write ends the vCPU's work with that code: not 0 ends the guest at once, 0 when all vCPUs wrote it.</summary>
    public const ushort Exit = 0xF4;

    /// <summary>A 32-bit write ends a pass of the vCPU and tells how many pages it has checked in it.</summary>
    public const ushort Report = 0xF5;
}
