namespace Pageferry.Migration;

/// <summary>A moment of a migration that is worth keeping: a phase or a round began, or something was decided.</summary>
/// <param name="Progress">How far the migration was; <see cref="MigrationProgress.Total"/> says when.</param>
/// <param name="Decision">What was decided, and why; null if nothing was.</param>
public readonly record struct MigrationMoment(MigrationProgress Progress, string? Decision);
