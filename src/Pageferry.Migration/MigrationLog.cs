using Microsoft.Extensions.Logging;

namespace Pageferry.Migration;

/// <summary>What a migration logs.</summary>
internal static partial class MigrationLog
{
    [LoggerMessage(EventId = 1, Level = LogLevel.Warning, Message = "A migration was turned away before switchover: {Reason}")]
    internal static partial void TurnedAway(ILogger logger, string reason);
}
