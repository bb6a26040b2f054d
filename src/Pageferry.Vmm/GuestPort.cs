namespace Pageferry.Vmm;

/// <summary>The ports that a guest talks to the VMM through.</summary>
/// <remarks>As on a PC's bus, nobody answers at other ports: a read gives all ones, a write is lost.</remarks>
public static class GuestPort
{
    /// <summary>A byte written is console output; <c>rep outsb</c> writes up to a kilobyte in one exit.</summary>
    public const ushort Console = 0xE9;

    /// <summary>A 32-bit write ends the guest with that code.</summary>
    public const ushort Exit = 0xF4;

    /// <summary>
    /// A 32-bit write ends a pass of the vCPU and tells how many pages it has checked in it; with <see cref="ReportWrong"/> it tells of
    /// pages found wrong.
    /// </summary>
    public const ushort Report = 0xF5;

    /// <summary>The bit of a report that says that the others count pages found wrong, and that no pass has ended.</summary>
    public const uint ReportWrong = 1u << 31;
}
