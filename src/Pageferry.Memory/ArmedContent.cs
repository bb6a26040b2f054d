namespace Pageferry.Memory;

/// <summary>What becomes of the content of pages that are armed.</summary>
public enum ArmedContent
{
    /// <summary>It stays: a page that is disarmed, or placed with <see cref="FaultEngine.Keep"/>, has it.</summary>
    Keep = 1,

    /// <summary>It is given back to the host: the page reads as zero if it is disarmed.</summary>
    Drop = 2,
}
