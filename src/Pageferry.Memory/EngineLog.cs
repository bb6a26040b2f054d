using Microsoft.Extensions.Logging;

namespace Pageferry.Memory;

/// <summary>What the fault engine logs; nothing of it is on the fault path.</summary>
internal static partial class EngineLog
{
    [LoggerMessage(EventId = 1, Level = LogLevel.Error, Message = "The fault engine failed; the guest stalls on missing pages.")]
    internal static partial void Failed(ILogger logger, Exception failure);

    [LoggerMessage(EventId = 2, Level = LogLevel.Warning, Message = "A userfault that came as an exit could not be located; it is taken by the queue. {What}")]
    internal static partial void Unlocated(ILogger logger, string what);

    [LoggerMessage(EventId = 3, Level = LogLevel.Warning, Message = "The guest stalls: page 0x{Gpa:x} {Cause} {Seconds:F1} s ago and waits for {WaitsFor}")]
    internal static partial void Stalled(ILogger logger, ulong gpa, double seconds, string cause, string waitsFor);

    [LoggerMessage(EventId = 4, Level = LogLevel.Error, Message = "{Pages} pages were whole and have lost their content; the guest stalls on them.")]
    internal static partial void LostContent(ILogger logger, long pages);
}
