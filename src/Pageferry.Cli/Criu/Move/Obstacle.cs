namespace Pageferry.Cli;

/// <summary>Something that would make a move fail, known before anything is frozen.</summary>
/// <param name="What">What it is.</param>
/// <param name="Remedy">What to do.</param>
internal sealed record Obstacle(string What, string Remedy)
{
    /// <inheritdoc/>
    public override string ToString() => $"{What} {Remedy}";

    /// <summary>Goes on if there is nothing in the way.</summary>
    /// <param name="subject">What can't be done, to begin the message.</param>
    /// <param name="obstacles">What is in the way.</param>
    /// <exception cref="CommandException">Something is.</exception>
    internal static void Hold(string subject, IReadOnlyCollection<Obstacle> obstacles)
    {
        if (obstacles.Count > 0)
        {
            throw new CommandException(obstacles.Count == 1 ? $"{subject} {obstacles.First()}" : $"{subject}\n  - {string.Join("\n  - ", obstacles)}");
        }
    }
}
