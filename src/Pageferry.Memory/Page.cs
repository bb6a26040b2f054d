namespace Pageferry.Memory;

/// <summary>The unit of transfer and placement.</summary>
public static class Page
{
    /// <summary>A page's size in bytes: the kernel's base page on x86-64.</summary>
    public const int Size = 4096;
}
