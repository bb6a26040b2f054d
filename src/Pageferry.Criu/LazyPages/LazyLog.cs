using System.Net;
using Microsoft.Extensions.Logging;

namespace Pageferry.Criu;

/// <summary>What the lazy-pages daemon logs; nothing of it is on the fault path.</summary>
internal static partial class LazyLog
{
    [LoggerMessage(EventId = 120, Level = LogLevel.Information, Message = "Process {Pid}: {Pages} pages to come.")]
    internal static partial void Began(ILogger logger, int pid, ulong pages);

    [LoggerMessage(EventId = 121, Level = LogLevel.Information, Message = "Process {Pid}: done; {Demand} pages were waited for, {Background} came before.")]
    internal static partial void Ended(ILogger logger, int pid, long demand, long background);

    [LoggerMessage(EventId = 122, Level = LogLevel.Error, Message = "{What} Processes stall on pages that have not arrived; their memory is lost if this daemon ends.")]
    internal static partial void Failed(ILogger logger, string what);

    [LoggerMessage(
        EventId = 123,
        Level = LogLevel.Warning,
        Message = "The page server {Server} {What} Processes stall on pages that have not arrived until it answers again; it is looked for as long as it takes.")]
    internal static partial void Lost(ILogger logger, EndPoint server, string what);

    [LoggerMessage(EventId = 124, Level = LogLevel.Warning, Message = "Connected to the page server {Server} again; {Requests} requests were repeated.")]
    internal static partial void Reconnected(ILogger logger, EndPoint server, int requests);

    [LoggerMessage(EventId = 125, Level = LogLevel.Warning, Message = "Not all of the restore is kept any more: {What} What is not is lost to its process if this daemon ends.")]
    internal static partial void NotKept(ILogger logger, string what);

    [LoggerMessage(EventId = 126, Level = LogLevel.Information, Message = "Process {Pid}: taken over; {Pages} pages still to come.")]
    internal static partial void Resumed(ILogger logger, int pid, long pages);

    [LoggerMessage(
        EventId = 127,
        Level = LogLevel.Error,
        Message = "Process {Pid} forked just when the daemon before died: {Lost} of its children lost what had not come to zeros. Ended for it, by their numbers here: {Ended}. What is not listed has ended by itself, or can't be told from others: end it.")]
    internal static partial void LostChildren(ILogger logger, int pid, int lost, string ended);

    [LoggerMessage(
        EventId = 128,
        Level = LogLevel.Warning,
        Message = "Told to end. What the processes still lack would read as zeros: all of it is brought first. Told once more, the daemon ends at once.")]
    internal static partial void Ending(ILogger logger);
}
