namespace Pageferry.Cli;

/// <summary>The answer to a <see cref="MoveHello"/>.</summary>
/// <param name="Session">What the source calls the move from now on: nobody guesses it.</param>
/// <param name="Stage">How far the move is at the destination: one of <see cref="MoveStage"/>.</param>
internal sealed record MoveWelcome(string Session, string Stage);
