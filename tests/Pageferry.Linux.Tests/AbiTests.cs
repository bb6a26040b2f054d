using System.Reflection;
using System.Runtime.InteropServices;
using Pageferry.Testing;

namespace Pageferry.Linux.Tests;

/// <summary>Every constant, size and offset against the C compiler's answer from the system's headers.</summary>
public class AbiTests
{
    private static readonly string[] s_headers =
    [
        "fcntl.h", "poll.h", "signal.h", "unistd.h", "errno.h", "sys/eventfd.h", "sys/mman.h", "sys/socket.h", "sys/syscall.h", "sys/un.h",
        "linux/userfaultfd.h", "linux/memfd.h", "linux/fs.h", "linux/falloc.h", "linux/mman.h",
    ];

    /// <summary>What is newer than Linux 6.1's headers, from the kernel's own source.</summary>
    private static readonly Dictionary<string, ulong> s_newer = new(StringComparer.Ordinal)
    {
        ["UFFDIO_MOVE"] = 0xc028aa05,
        ["UFFDIO_POISON"] = 0xc020aa08,
        ["UFFD_FEATURE_WP_UNPOPULATED"] = 1 << 13,
        ["UFFD_FEATURE_POISON"] = 1 << 14,
        ["UFFD_FEATURE_WP_ASYNC"] = 1 << 15,
        ["UFFD_FEATURE_MOVE"] = 1 << 16,
        ["UFFDIO_MOVE_MODE_DONTWAKE"] = 1,
        ["UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES"] = 2,
        ["PAGEMAP_SCAN"] = 0xc0606610,
        ["PAGE_IS_WPALLOWED"] = 1,
        ["PAGE_IS_WRITTEN"] = 2,
        ["PAGE_IS_FILE"] = 4,
        ["PAGE_IS_PRESENT"] = 8,
        ["PAGE_IS_SWAPPED"] = 16,
        ["PAGE_IS_PFNZERO"] = 32,
        ["PAGE_IS_HUGE"] = 64,
        ["PAGE_IS_SOFT_DIRTY"] = 128,
        ["MADV_COLLAPSE"] = 25,
        ["sizeof(struct pm_scan_arg)"] = 96,
        ["sizeof(struct page_region)"] = 24,
    };

    /// <summary>C names of what is not called so here, or is a name for an expression.</summary>
    private static readonly Dictionary<string, string> s_expressions = new(StringComparer.Ordinal)
    {
        ["UFFD_USER_MODE_ONLY"] = "UFFD_USER_MODE_ONLY",
        ["UnixPathBytes"] = "sizeof(((struct sockaddr_un *)0)->sun_path)",
        ["SCM_RIGHTS"] = "(int)SCM_RIGHTS",
        ["MSG_CTRUNC"] = "(int)MSG_CTRUNC",
        ["MSG_NOSIGNAL"] = "(int)MSG_NOSIGNAL",
        ["MSG_CMSG_CLOEXEC"] = "(int)MSG_CMSG_CLOEXEC",
        ["SOCK_STREAM"] = "(int)SOCK_STREAM",
        ["SOCK_CLOEXEC"] = "(int)SOCK_CLOEXEC",
        ["EFD_NONBLOCK"] = "(int)EFD_NONBLOCK",
        ["EFD_CLOEXEC"] = "(int)EFD_CLOEXEC",
    };

    [Fact]
    public void Constants_are_the_compilers() => AssertPinned(Compiler.Constants(typeof(Interop)).Select(constant => (ExpressionOf(constant.Name), constant.Value)));

    [Fact]
    public void Structures_have_the_compilers_sizes_and_offsets()
    {
        var expected = new List<(string, ulong)>();
        foreach (Type type in Compiler.Structures(typeof(Interop)))
        {
            expected.Add(($"sizeof(struct {type.Name})", (ulong)Marshal.SizeOf(type)));
            if (!s_newer.ContainsKey($"sizeof(struct {type.Name})"))
            {
                expected.AddRange(type.GetFields(BindingFlags.Instance | BindingFlags.NonPublic | BindingFlags.Public)
                    .Select(field => ($"offsetof(struct {type.Name}, {field.Name})", (ulong)Marshal.OffsetOf(type, field.Name))));
            }
        }

        // One structure stands for several of the same shape.
        expected.Add(("sizeof(struct uffdio_continue)", (ulong)Marshal.SizeOf<Interop.uffdio_zeropage>()));
        expected.Add(("offsetof(struct uffdio_continue, mapped)", (ulong)Marshal.OffsetOf<Interop.uffdio_zeropage>("zeropage")));
        expected.Add(("sizeof(struct uffd_msg)", UserfaultfdEvent.Size));
        expected.Add(("offsetof(struct uffd_msg, arg)", 8));
        expected.Add(("offsetof(struct uffd_msg, arg.pagefault.flags)", 8));
        expected.Add(("offsetof(struct uffd_msg, arg.pagefault.address)", 16));
        expected.Add(("offsetof(struct uffd_msg, arg.pagefault.feat.ptid)", 24));
        expected.Add(("offsetof(struct uffd_msg, arg.fork.ufd)", 8));
        expected.Add(("offsetof(struct uffd_msg, arg.remap.from)", 8));
        expected.Add(("offsetof(struct uffd_msg, arg.remap.to)", 16));
        expected.Add(("offsetof(struct uffd_msg, arg.remap.len)", 24));
        expected.Add(("offsetof(struct uffd_msg, arg.remove.start)", 8));
        expected.Add(("offsetof(struct uffd_msg, arg.remove.end)", 16));
        expected.Add(("sizeof(struct page_region)", (ulong)Marshal.SizeOf<PageRange>()));
        expected.Add(("(unsigned long)SYS_userfaultfd", (ulong)Interop.SYS_userfaultfd));
        expected.Add(("(unsigned long)SYS_setuid", (ulong)Interop.SYS_setuid));
        AssertPinned(expected);
    }

    [Fact]
    public void Public_enums_hold_the_kernels_values()
    {
        AssertPinned(Named<UserfaultfdFeatures>(
            "UFFD_FEATURE_",
            (nameof(UserfaultfdFeatures.PageFaultFlagWriteProtect), "PAGEFAULT_FLAG_WP"),
            (nameof(UserfaultfdFeatures.WriteProtectHugetlbfsShmem), "WP_HUGETLBFS_SHMEM"),
            (nameof(UserfaultfdFeatures.WriteProtectUnpopulated), "WP_UNPOPULATED"),
            (nameof(UserfaultfdFeatures.WriteProtectAsync), "WP_ASYNC")));
        AssertPinned(Named<UserfaultfdModes>("UFFDIO_REGISTER_MODE_", (nameof(UserfaultfdModes.WriteProtect), "WP")));
        AssertPinned(Named<UserfaultfdCopyFlags>("UFFDIO_COPY_MODE_", (nameof(UserfaultfdCopyFlags.WriteProtect), "WP"), (nameof(UserfaultfdCopyFlags.DontWake), "DONTWAKE")));
        AssertPinned(Named<UserfaultfdMoveFlags>("UFFDIO_MOVE_MODE_", (nameof(UserfaultfdMoveFlags.DontWake), "DONTWAKE"), (nameof(UserfaultfdMoveFlags.AllowSourceHoles), "ALLOW_SRC_HOLES")));
        AssertPinned(Named<UserfaultfdEventKind>("UFFD_EVENT_", (nameof(UserfaultfdEventKind.PageFault), "PAGEFAULT")));
        AssertPinned(Named<PageCategories>(
            "PAGE_IS_",
            (nameof(PageCategories.WriteProtectAllowed), "WPALLOWED"),
            (nameof(PageCategories.ZeroPage), "PFNZERO")));
        AssertPinned(Named<MemoryProtection>("PROT_", (nameof(MemoryProtection.Execute), "EXEC")).Where(pair => pair.Expression != "PROT_READ_WRITE"));
        AssertPinned(Compiler.Values<MemoryAdvice>().Select(value => ($"MADV_{Upper(value.Name, keepTogether: ["Dont", "HugePage", "NoHugePage", "DontNeed", "DontFork", "DontDump"])}", value.Value)));
        AssertPinned(Compiler.Values<Errno>().Where(value => value.Value != 0).Select(value => (value.Name, value.Value)));
    }

    private static IEnumerable<(string Expression, ulong Value)> Named<T>(string prefix, params (string Name, string CName)[] exceptions)
        where T : struct, Enum =>
        from value in Compiler.Values<T>()
        where value.Value != 0 && !value.Name.Contains(',', StringComparison.Ordinal)
        let exception = exceptions.FirstOrDefault(exception => exception.Name == value.Name).CName
        select ($"{prefix}{exception ?? Upper(value.Name, [])}", value.Value);

    /// <summary>DontNeed → DONTNEED where kept together, PopulateRead → POPULATE_READ else.</summary>
    private static string Upper(string name, string[] keepTogether) => keepTogether.Contains(name)
        ? name.ToUpperInvariant()
        : string.Concat(name.Select((letter, i) => i > 0 && char.IsUpper(letter) ? $"_{letter}" : $"{letter}")).ToUpperInvariant();

    private static string ExpressionOf(string name) => s_expressions.GetValueOrDefault(name, name);

    private static void AssertPinned(IEnumerable<(string Expression, ulong Value)> ours)
    {
        (string Expression, ulong Value)[] pairs = [.. ours];
        Assert.NotEmpty(pairs);
        Dictionary<string, ulong> theirs = Compiler.Evaluate(s_headers, pairs.Select(pair => pair.Expression).Where(IsKnown));
        Assert.All(pairs, pair =>
        {
            bool known = theirs.TryGetValue(pair.Expression, out ulong value) || s_newer.TryGetValue(pair.Expression, out value);
            Assert.True(known, $"Neither the headers nor this test know {pair.Expression}.");
            Assert.True(value == pair.Value, $"{pair.Expression} is 0x{value:x} for the compiler and 0x{pair.Value:x} here.");
        });
    }

    /// <summary>A structure that the headers may lack would not compile.</summary>
    private static bool IsKnown(string expression) => !expression.Contains("pm_scan_arg", StringComparison.Ordinal) && !expression.Contains("page_region", StringComparison.Ordinal);
}
