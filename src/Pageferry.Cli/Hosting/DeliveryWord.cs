using Pageferry.Linux;
using Pageferry.Memory;

namespace Pageferry.Cli;

/// <summary>The words for how userfaults are delivered, in options and in JSON.</summary>
internal static class DeliveryWord
{
    /// <summary>By the userfaultfd's queue.</summary>
    internal const string Queue = "queue";

    /// <summary>As exits to the vCPU's own thread.</summary>
    internal const string Exit = "exit";

    /// <summary>As exits where KVM makes them itself; else by the queue where userfaultfd is permitted, else as exits.</summary>
    internal const string Auto = "auto";

    /// <summary>The word for a delivery.</summary>
    /// <param name="delivery">The delivery.</param>
    /// <returns><see cref="Queue"/> or <see cref="Exit"/>.</returns>
    internal static string Of(FaultDelivery delivery) => delivery == FaultDelivery.Queue ? Queue : Exit;

    /// <summary>The delivery for a word.</summary>
    /// <param name="word">One of the constants of this type.</param>
    /// <returns>The delivery; for <see cref="Auto"/> the one that catches every access, if this process may have it.</returns>
    internal static FaultDelivery Choose(string word) => word switch
    {
        Queue => FaultDelivery.Queue,
        Exit => FaultDelivery.Exit,
        _ when KvmExamination.WhyNotUserfault() is null => FaultDelivery.Exit,
        _ => UserfaultfdExamination.WhyNot(UserfaultfdFeatures.None) is null ? FaultDelivery.Queue : FaultDelivery.Exit,
    };
}
