using Microsoft.Extensions.Logging;

namespace Pageferry.Migration;

/// <summary>What a migration logs.</summary>
internal static partial class MigrationLog
{
    [LoggerMessage(EventId = 1, Level = LogLevel.Warning, Message = "A migration was turned away before switchover: {Reason}")]
    internal static partial void TurnedAway(ILogger logger, string reason);

    [LoggerMessage(EventId = 2, Level = LogLevel.Warning, Message = "A connection from {Peer} was refused: {Reason}{Others}")]
    internal static partial void Refused(ILogger logger, string peer, string reason, string others);

    [LoggerMessage(EventId = 3, Level = LogLevel.Warning, Message = "The link to the source was lost, and its return is waited for: {Reason}")]
    internal static partial void LinkLost(ILogger logger, string reason);
}
