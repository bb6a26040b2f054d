namespace Pageferry.Migration;

/// <summary>How a page went from the source to the destination.</summary>
public enum TransferKind
{
    /// <summary>With its content, while the guest was the source's.</summary>
    Precopy,

    /// <summary>With its content, because the guest waited for it at the destination.</summary>
    Demand,

    /// <summary>With its content, after the switchover, before the guest touched it.</summary>
    Background,

    /// <summary>As the news that it is zero.</summary>
    Zero,
}
