using System.Net;
using Microsoft.Extensions.Logging;

namespace Pageferry.Criu;

/// <summary>What page servers log.</summary>
internal static partial class PageServerLog
{
    [LoggerMessage(EventId = 1, Level = LogLevel.Information, Message = "{Peer} asks for pages ({Form}-byte headers)")]
    internal static partial void Began(ILogger logger, EndPoint? peer, int form);

    [LoggerMessage(EventId = 2, Level = LogLevel.Information, Message = "{Peer} is done: {Pages} pages in {Requests} requests")]
    internal static partial void Done(ILogger logger, EndPoint? peer, ulong pages, ulong requests);

    [LoggerMessage(EventId = 3, Level = LogLevel.Warning, Message = "The connection of {Peer} was ended: {Reason}")]
    internal static partial void Ended(ILogger logger, EndPoint? peer, string reason);

    [LoggerMessage(EventId = 4, Level = LogLevel.Warning, Message = "A connection was closed at once: there are {Most} already")]
    internal static partial void Full(ILogger logger, int most);

    [LoggerMessage(EventId = 5, Level = LogLevel.Warning, Message = "{Peer} asks for pages of process {Process} at {Address} that no pagemap has")]
    internal static partial void NotThere(ILogger logger, EndPoint? peer, ulong process, string address);

    [LoggerMessage(EventId = 6, Level = LogLevel.Information, Message = "{Peer} sends the pages of {Name}")]
    internal static partial void Receiving(ILogger logger, EndPoint? peer, string name);
}
