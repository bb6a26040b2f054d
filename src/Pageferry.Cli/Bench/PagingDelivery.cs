namespace Pageferry.Cli;

/// <summary>How a vCPU's first access to a page gets its page.</summary>
internal enum PagingDelivery
{
    /// <summary>The page is there: no userfault, the floor.</summary>
    None,

    /// <summary>The userfaultfd queue, read by the fault engine's reader threads.</summary>
    Queue,

    /// <summary>The vCPU's exit, resolved on its own thread.</summary>
    Exit,
}
