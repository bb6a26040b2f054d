namespace Pageferry.Conformance;

/// <summary>One rule of userfaults, and the code that finds out whether the running kernel keeps it.</summary>
public sealed class ConformanceCase
{
    /// <summary>All kinds that every kernel with userfaultfd has, as in the kernel's own tests.</summary>
    internal static readonly MemoryKind[] All = [MemoryKind.Anonymous, MemoryKind.Shmem, MemoryKind.ShmemPrivate, MemoryKind.Hugetlb, MemoryKind.HugetlbPrivate];

    internal ConformanceCase(char group, string name, string rule, string source, IReadOnlyList<MemoryKind> memories, Action<Arena> run)
    {
        Group = group;
        Name = name;
        Rule = rule;
        Source = source;
        Memories = memories;
        Run = run;
    }

    /// <summary>The letter of its group; <see cref="ConformanceSuite.Groups"/> names it.</summary>
    public char Group { get; }

    /// <summary>Its name, unique.</summary>
    public string Name { get; }

    /// <summary>The rule in one line.</summary>
    public string Rule { get; }

    /// <summary>Where the rule comes from: a manual page, a test of the kernel's own, or an observation.</summary>
    public string Source { get; }

    /// <summary>The memory that it is run on.</summary>
    public IReadOnlyList<MemoryKind> Memories { get; }

    internal Action<Arena> Run { get; }
}
