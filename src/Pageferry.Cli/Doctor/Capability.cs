namespace Pageferry.Cli;

/// <summary>Something that Pageferry does, and whether it can here.</summary>
/// <param name="Name">What it does.</param>
/// <param name="Available">Whether it can.</param>
/// <param name="Reason">Why it can't and what to do; null when it can.</param>
internal sealed record Capability(string Name, bool Available, string? Reason);
