namespace Pageferry.Migration;

/// <summary>How what a source serves from is kept by somebody who outlives it (<see cref="ISourceKeeper"/>).</summary>
internal enum KeptStage
{
    /// <summary>It goes with the source's process: the guest was not handed over.</summary>
    Offered,

    /// <summary>It outlives the source's process, and another one may serve it.</summary>
    LetGo,

    /// <summary>Nobody serves it any more: the guest may run at the source.</summary>
    Burnt,

    /// <summary>It is not kept any more: the destination has all.</summary>
    Dropped,
}
