namespace Pageferry.Migration;

/// <summary>What a round of pre-copy was like.</summary>
/// <param name="Round">Which one, from 1.</param>
/// <param name="Pages">Pages that went, zeros included.</param>
/// <param name="Duration">From its first page until all of it was placed.</param>
/// <param name="Dirty">Pages that were written meanwhile: what is left.</param>
internal readonly record struct RoundMeasure(int Round, long Pages, TimeSpan Duration, long Dirty);
