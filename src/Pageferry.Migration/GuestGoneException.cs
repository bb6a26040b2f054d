namespace Pageferry.Migration;

/// <summary>The destination that was found again can't run the guest any more.</summary>
/// <param name="found">What became of it there.</param>
internal sealed class GuestGoneException(FoundGuest found) : IOException(
    found == FoundGuest.Exported
        ? "The guest was taken out of the destination as a file. Take this side's half out too, with 'pageferry recover export', and make one guest of both with 'pageferry recover merge'."
        : "The destination has dropped the guest, as this side had asked.");
