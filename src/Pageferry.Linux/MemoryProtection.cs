namespace Pageferry.Linux;

/// <summary>What may be done with mapped memory: the <c>PROT_</c> flags of mmap(2).</summary>
[Flags]
public enum MemoryProtection
{
    /// <summary><c>PROT_NONE</c>: every access is SIGSEGV, or EFAULT in the kernel.</summary>
    None = Interop.PROT_NONE,

    /// <summary><c>PROT_READ</c>.</summary>
    Read = Interop.PROT_READ,

    /// <summary><c>PROT_WRITE</c>.</summary>
    Write = Interop.PROT_WRITE,

    /// <summary><c>PROT_EXEC</c>.</summary>
    Execute = Interop.PROT_EXEC,

    /// <summary>Read and write, the usual case.</summary>
    ReadWrite = Read | Write,
}
