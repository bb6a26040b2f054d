namespace Pageferry.Migration;

/// <summary>The protocol versions that a side speaks.</summary>
/// <param name="Lowest">The oldest.</param>
/// <param name="Highest">The newest, not below the oldest.</param>
public readonly record struct VersionRange(ushort Lowest, ushort Highest)
{
    /// <summary>What this build speaks.</summary>
    public static VersionRange Current { get; } = new(3, 3);

    /// <summary>The newest version that both sides speak.</summary>
    /// <param name="peer">What the other side speaks.</param>
    /// <returns>The version; null when there is none.</returns>
    public ushort? Agree(VersionRange peer)
    {
        ushort highest = Math.Min(Highest, peer.Highest);
        return highest >= Lowest && highest >= peer.Lowest ? highest : null;
    }

    /// <inheritdoc/>
    public override string ToString() => Lowest == Highest ? $"{Lowest}" : $"{Lowest} to {Highest}";
}
