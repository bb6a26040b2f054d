namespace Pageferry.Cli;

/// <summary>The words for how a vCPU gets its pages, in options and in JSON.</summary>
internal static class PagingDeliveryWord
{
    internal const string None = "none";
    internal const string Queue = "queue";
    internal const string Exit = "exit";

    /// <summary>The deliveries, in the order in which a comparison goes through them.</summary>
    internal static IReadOnlyList<PagingDelivery> Offered { get; } = [PagingDelivery.None, PagingDelivery.Queue, PagingDelivery.Exit];

    /// <summary>The word for a delivery.</summary>
    /// <param name="delivery">The delivery.</param>
    /// <returns>One of the constants of this type.</returns>
    internal static string Of(PagingDelivery delivery) => delivery switch
    {
        PagingDelivery.None => None,
        PagingDelivery.Queue => Queue,
        _ => Exit,
    };

    /// <summary>The delivery for a word.</summary>
    /// <param name="word">One of the constants of this type.</param>
    /// <returns>The delivery.</returns>
    internal static PagingDelivery Parse(string word) => word switch
    {
        None => PagingDelivery.None,
        Queue => PagingDelivery.Queue,
        _ => PagingDelivery.Exit,
    };
}
