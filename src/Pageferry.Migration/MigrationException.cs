namespace Pageferry.Migration;

/// <summary>A migration failed: where the guest is now, and why.</summary>
public sealed class MigrationException : Exception
{
    /// <summary>Makes the exception.</summary>
    /// <param name="message">What was tried, why it failed, and what became of the guest.</param>
    /// <param name="switchedOver">Whether the switchover was before the failure.</param>
    /// <param name="inner">The cause.</param>
    public MigrationException(string message, bool switchedOver, Exception? inner = null)
        : base(message, inner) => SwitchedOver = switchedOver;

    /// <summary>Whether the guest is the destination's. If not, it goes on at the source.</summary>
    public bool SwitchedOver { get; }
}
