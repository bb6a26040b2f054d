namespace Pageferry.Memory;

/// <summary>How a userfault reaches who resolves it.</summary>
public enum FaultDelivery
{
    /// <summary>By the userfaultfd's queue: the faulting thread waits in the kernel, and the engine's reader thread resolves. Catches every access, KVM's own included.</summary>
    Queue = 1,

    /// <summary>
    /// As an exit: the access fails (<c>UFFD_FEATURE_SIGBUS</c>, or <c>PROT_NONE</c> where userfaultfd is not permitted), <c>KVM_RUN</c> returns, and the
    /// vCPU's own thread resolves the fault with <see cref="FaultEngine.Resolve"/>. Any other touch of the guest view is SIGBUS or SIGSEGV. Where KVM makes the exit
    /// itself, by <see cref="FaultEngine.ShareArmed"/>, the others wait in the queue.
    /// </summary>
    Exit = 2,
}
