using System.Net;
using Pageferry.Migration;

namespace Pageferry.Cli;

/// <summary>A place where a guest can arrive, with its engine in this process or in one of its own.</summary>
internal interface IArrival : IDisposable
{
    /// <summary>Where it listens.</summary>
    IPEndPoint Endpoint { get; }

    /// <summary>Whether a guest can still be sent here.</summary>
    bool IsListening { get; }

    /// <summary>How far the guest's arrival is; null while none is on its way.</summary>
    MigrationStatus? Status { get; }

    /// <summary>The engine's process; null where it is this one.</summary>
    EngineStatus? Engine { get; }

    /// <summary>Takes one guest in, or goes on with one whose source was given up.</summary>
    /// <param name="arrived">Called when the guest runs here and its memory is still arriving.</param>
    /// <param name="turnedAway">Called with the reason when a guest did not come: another is waited for.</param>
    /// <param name="fenced">Called when the source has taken the guest back, and it was stopped here.</param>
    /// <returns>Completes when all its memory is here; fails when the source is given up before.</returns>
    Task ReceiveAsync(Action<HostedGuest> arrived, Action<string> turnedAway, Action fenced);

    /// <summary>Takes the guest out: it is stopped, and never runs here again.</summary>
    /// <returns>What is here of it, beside its memory.</returns>
    /// <exception cref="InvalidOperationException">Its link is there, or all of it is here.</exception>
    GuestHalf Export();

    /// <summary>Writes the report of what came last, if one is wanted.</summary>
    /// <param name="status">How the guest is now.</param>
    /// <param name="guest">The guest's id; empty if none came.</param>
    /// <param name="error">Why it failed; null if it didn't.</param>
    /// <returns>Where it is, or why it isn't, for a reader; null if none is wanted.</returns>
    string? WriteReport(VmStatus status, Guid guest, string? error);

    /// <summary>Has another program be the engine from now on.</summary>
    /// <param name="program">The program's path; null for the one that is the engine now, started anew.</param>
    /// <returns>Completes when it is.</returns>
    /// <exception cref="CommandException">It could not; the message says what is the engine then.</exception>
    Task ReplaceEngineAsync(string? program);
}
