using System.Globalization;
using Pageferry.Memory;

namespace Pageferry.Cli;

/// <summary>A userfault that has waited for longer than <c>--stall-warning</c>.</summary>
internal sealed record StallStatus
{
    /// <summary>The guest physical address of its page, in hexadecimal.</summary>
    public required string Gpa { get; init; }

    /// <summary><c>demand</c>: its page was asked for; <c>arriving</c>: it is on its way.</summary>
    public required string Cause { get; init; }

    /// <summary>Milliseconds that it has waited.</summary>
    public required double AgeMs { get; init; }

    /// <summary>The part of a status about a stall.</summary>
    internal static StallStatus Of(WaitingFault fault) => new()
    {
        Gpa = string.Create(CultureInfo.InvariantCulture, $"0x{fault.Gpa:x}"),
        Cause = fault.Cause == FaultCause.Demand ? "demand" : "arriving",
        AgeMs = fault.Age.TotalMilliseconds,
    };
}
