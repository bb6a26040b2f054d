namespace Pageferry.Memory;

/// <summary>Which accesses to an armed range are userfaults.</summary>
public enum UserfaultSemantics
{
    /// <summary>KVM Userfault's: any access, whether or not the page was ever accessed before.</summary>
    AnyAccess = 1,

    /// <summary>userfaultfd's: the first access to a page that was never populated. Populated pages stay accessible.</summary>
    FirstAccess = 2,
}
