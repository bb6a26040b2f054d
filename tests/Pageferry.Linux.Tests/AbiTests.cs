using System.Globalization;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Pageferry.Linux.Tests;

/// <summary>
/// Pins every number and structure that crosses the kernel's border to the C compiler's own answer. Names come from reflection:
/// what is added to <see cref="Interop"/> or to an enumeration of kernel values is pinned, or fails for want of a C name.
/// </summary>
public class AbiTests
{
    private const BindingFlags Statics = BindingFlags.Static | BindingFlags.NonPublic | BindingFlags.Public;
    private const BindingFlags Instances = BindingFlags.Instance | BindingFlags.NonPublic | BindingFlags.Public;

    /// <summary>What Debian 12's headers (Linux 6.1) don't know; where the compiler knows it, its answer has to be the same.</summary>
    private static readonly Dictionary<string, ulong> s_newer = new(StringComparer.Ordinal)
    {
        ["UFFDIO_MOVE"] = 0xc028aa05,
        ["UFFDIO_POISON"] = 0xc020aa08,
        ["UFFD_FEATURE_WP_UNPOPULATED"] = 1 << 13,
        ["UFFD_FEATURE_POISON"] = 1 << 14,
        ["UFFD_FEATURE_WP_ASYNC"] = 1 << 15,
        ["UFFD_FEATURE_MOVE"] = 1 << 16,
        ["UFFDIO_CONTINUE_MODE_WP"] = 2,
        ["UFFDIO_POISON_MODE_DONTWAKE"] = 1,
        ["UFFDIO_MOVE_MODE_DONTWAKE"] = 1,
        ["UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES"] = 2,
        ["sizeof uffdio_move"] = 40,
        ["sizeof uffdio_poison"] = 32,
        ["PAGEMAP_SCAN"] = 0xc0606610,
        ["PM_SCAN_WP_MATCHING"] = 1,
        ["PM_SCAN_CHECK_WPASYNC"] = 2,
        ["PAGE_IS_WPALLOWED"] = 1,
        ["PAGE_IS_WRITTEN"] = 2,
        ["PAGE_IS_FILE"] = 4,
        ["PAGE_IS_PRESENT"] = 8,
        ["PAGE_IS_SWAPPED"] = 16,
        ["PAGE_IS_PFNZERO"] = 32,
        ["PAGE_IS_HUGE"] = 64,
        ["PAGE_IS_SOFT_DIRTY"] = 128,
        ["PAGE_IS_GUARD"] = 256,
        ["sizeof pm_scan_arg"] = 96,
        ["pm_scan_arg.size"] = 0,
        ["pm_scan_arg.flags"] = 8,
        ["pm_scan_arg.start"] = 16,
        ["pm_scan_arg.end"] = 24,
        ["pm_scan_arg.walk_end"] = 32,
        ["pm_scan_arg.vec"] = 40,
        ["pm_scan_arg.vec_len"] = 48,
        ["pm_scan_arg.max_pages"] = 56,
        ["pm_scan_arg.category_inverted"] = 64,
        ["pm_scan_arg.category_mask"] = 72,
        ["pm_scan_arg.category_anyof_mask"] = 80,
        ["pm_scan_arg.return_mask"] = 88,
        ["sizeof page_region"] = 24,
        ["page_region.start"] = 0,
        ["page_region.end"] = 8,
        ["page_region.categories"] = 16,
    };

    private static readonly Dictionary<Enum, string[]> s_enumerations = new()
    {
        [MemoryProtection.None] = ["PROT_NONE"],
        [MemoryProtection.Read] = ["PROT_READ"],
        [MemoryProtection.Write] = ["PROT_WRITE"],
        [MemoryProtection.Execute] = ["PROT_EXEC"],
        [MemoryProtection.ReadWrite] = ["PROT_READ | PROT_WRITE"],
        [MemoryAdvice.DontNeed] = ["MADV_DONTNEED"],
        [MemoryAdvice.Remove] = ["MADV_REMOVE"],
        [MemoryAdvice.DontFork] = ["MADV_DONTFORK"],
        [MemoryAdvice.HugePage] = ["MADV_HUGEPAGE"],
        [MemoryAdvice.NoHugePage] = ["MADV_NOHUGEPAGE"],
        [MemoryAdvice.DontDump] = ["MADV_DONTDUMP"],
        [MemoryAdvice.PopulateRead] = ["MADV_POPULATE_READ"],
        [MemoryAdvice.PopulateWrite] = ["MADV_POPULATE_WRITE"],
        [MemoryAdvice.Collapse] = ["MADV_COLLAPSE"],
        [UserfaultfdFeatures.None] = ["0"],
        [UserfaultfdFeatures.PageFaultFlagWriteProtect] = ["UFFD_FEATURE_PAGEFAULT_FLAG_WP"],
        [UserfaultfdFeatures.EventFork] = ["UFFD_FEATURE_EVENT_FORK"],
        [UserfaultfdFeatures.EventRemap] = ["UFFD_FEATURE_EVENT_REMAP"],
        [UserfaultfdFeatures.EventRemove] = ["UFFD_FEATURE_EVENT_REMOVE"],
        [UserfaultfdFeatures.MissingHugetlbfs] = ["UFFD_FEATURE_MISSING_HUGETLBFS"],
        [UserfaultfdFeatures.MissingShmem] = ["UFFD_FEATURE_MISSING_SHMEM"],
        [UserfaultfdFeatures.EventUnmap] = ["UFFD_FEATURE_EVENT_UNMAP"],
        [UserfaultfdFeatures.Sigbus] = ["UFFD_FEATURE_SIGBUS"],
        [UserfaultfdFeatures.ThreadId] = ["UFFD_FEATURE_THREAD_ID"],
        [UserfaultfdFeatures.MinorHugetlbfs] = ["UFFD_FEATURE_MINOR_HUGETLBFS"],
        [UserfaultfdFeatures.MinorShmem] = ["UFFD_FEATURE_MINOR_SHMEM"],
        [UserfaultfdFeatures.ExactAddress] = ["UFFD_FEATURE_EXACT_ADDRESS"],
        [UserfaultfdFeatures.WriteProtectHugetlbfsShmem] = ["UFFD_FEATURE_WP_HUGETLBFS_SHMEM"],
        [UserfaultfdFeatures.WriteProtectUnpopulated] = ["UFFD_FEATURE_WP_UNPOPULATED"],
        [UserfaultfdFeatures.Poison] = ["UFFD_FEATURE_POISON"],
        [UserfaultfdFeatures.WriteProtectAsync] = ["UFFD_FEATURE_WP_ASYNC"],
        [UserfaultfdFeatures.Move] = ["UFFD_FEATURE_MOVE"],
        [UserfaultfdModes.None] = ["0"],
        [UserfaultfdModes.Missing] = ["UFFDIO_REGISTER_MODE_MISSING"],
        [UserfaultfdModes.WriteProtect] = ["UFFDIO_REGISTER_MODE_WP"],
        [UserfaultfdModes.Minor] = ["UFFDIO_REGISTER_MODE_MINOR"],
        [UserfaultfdCopyFlags.None] = ["0"],
        [UserfaultfdCopyFlags.DontWake] = ["UFFDIO_COPY_MODE_DONTWAKE", "UFFDIO_ZEROPAGE_MODE_DONTWAKE", "UFFDIO_CONTINUE_MODE_DONTWAKE", "UFFDIO_POISON_MODE_DONTWAKE"],
        [UserfaultfdCopyFlags.WriteProtect] = ["UFFDIO_COPY_MODE_WP", "UFFDIO_CONTINUE_MODE_WP"],
        [UserfaultfdMoveFlags.None] = ["0"],
        [UserfaultfdMoveFlags.DontWake] = ["UFFDIO_MOVE_MODE_DONTWAKE"],
        [UserfaultfdMoveFlags.AllowSourceHoles] = ["UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES"],
        [UserfaultfdWriteProtectFlags.None] = ["0"],
        [UserfaultfdWriteProtectFlags.Protect] = ["UFFDIO_WRITEPROTECT_MODE_WP"],
        [UserfaultfdWriteProtectFlags.DontWake] = ["UFFDIO_WRITEPROTECT_MODE_DONTWAKE"],
        [PageCategories.None] = ["0"],
        [PageCategories.WriteProtectAllowed] = ["PAGE_IS_WPALLOWED"],
        [PageCategories.Written] = ["PAGE_IS_WRITTEN"],
        [PageCategories.File] = ["PAGE_IS_FILE"],
        [PageCategories.Present] = ["PAGE_IS_PRESENT"],
        [PageCategories.Swapped] = ["PAGE_IS_SWAPPED"],
        [PageCategories.ZeroPage] = ["PAGE_IS_PFNZERO"],
        [PageCategories.Huge] = ["PAGE_IS_HUGE"],
        [PageCategories.SoftDirty] = ["PAGE_IS_SOFT_DIRTY"],
        [PageCategories.Guard] = ["PAGE_IS_GUARD"],
        [UnixSocketType.Stream] = ["SOCK_STREAM"],
        [UnixSocketType.SequencedPackets] = ["SOCK_SEQPACKET"],
        [UserfaultfdEventKind.PageFault] = ["UFFD_EVENT_PAGEFAULT"],
        [UserfaultfdEventKind.Fork] = ["UFFD_EVENT_FORK"],
        [UserfaultfdEventKind.Remap] = ["UFFD_EVENT_REMAP"],
        [UserfaultfdEventKind.Remove] = ["UFFD_EVENT_REMOVE"],
        [UserfaultfdEventKind.Unmap] = ["UFFD_EVENT_UNMAP"],
    };

    /// <summary>Structures of the same shape as one of ours, with the C name of each field that is called otherwise there.</summary>
    private static readonly (string Ours, string Theirs, string OurField, string TheirField)[] s_sameShape =
    [
        ("uffdio_copy", "uffdio_move", "copy", "move"),
        ("uffdio_zeropage", "uffdio_continue", "zeropage", "mapped"),
        ("uffdio_zeropage", "uffdio_poison", "zeropage", "updated"),
    ];

    /// <summary>Structures that old headers lack, by the macro that came with them.</summary>
    private static readonly Dictionary<string, string> s_macroOfStructure = new(StringComparer.Ordinal)
    {
        ["uffdio_move"] = "UFFDIO_MOVE",
        ["uffdio_poison"] = "UFFDIO_POISON",
        ["pm_scan_arg"] = "PAGEMAP_SCAN",
        ["page_region"] = "PAGEMAP_SCAN",
    };

    private static readonly Lazy<Dictionary<string, ulong>> s_answers = new(() => KernelHeaders.Ask(Questions()));

    private delegate ulong EventField(UserfaultfdEvent message);

    [Fact]
    public void Every_constant_is_the_headers()
    {
        List<(string Name, ulong Value)> constants = [.. Constants()];
        Assert.True(constants.Count > 40, "Reflection found hardly any constant.");
        Assert.Empty(constants.SelectMany(constant => Difference(constant.Name, constant.Value)));
    }

    [Fact]
    public void System_calls_numbers_on_arm64_are_the_generic_ones()
    {
        string[] generic = File.ReadAllLines("/usr/include/asm-generic/unistd.h");
        Assert.Contains($"#define __NR_userfaultfd {Interop.UserfaultfdNumber(Architecture.Arm64)}", generic, StringComparer.Ordinal);
        Assert.Contains($"#define __NR_sched_setattr {Interop.SchedSetattrNumber(Architecture.Arm64)}", generic, StringComparer.Ordinal);
        Assert.Contains($"#define __NR_sched_getattr {Interop.SchedGetattrNumber(Architecture.Arm64)}", generic, StringComparer.Ordinal);
        Assert.Contains($"#define __NR_perf_event_open {Interop.PerfEventOpenNumber(Architecture.Arm64)}", generic, StringComparer.Ordinal);
        Assert.Contains($"#define __NR_pidfd_send_signal {Interop.SYS_pidfd_send_signal}", generic, StringComparer.Ordinal);
        Assert.Contains($"#define __NR_pidfd_open {Interop.SYS_pidfd_open}", generic, StringComparer.Ordinal);
        Assert.Contains($"#define __NR_io_uring_setup {Interop.SYS_io_uring_setup}", generic, StringComparer.Ordinal);
        Assert.Contains($"#define __NR_io_uring_register {Interop.SYS_io_uring_register}", generic, StringComparer.Ordinal);
    }

    [Fact]
    public void Every_errno_is_the_headers() =>
        Assert.Empty(Enum.GetValues<Errno>().Where(errno => errno != Errno.None).SelectMany(errno => Difference(errno.ToString(), (ulong)errno)));

    [Fact]
    public void Every_enumeration_of_kernel_values_is_the_headers()
    {
        Type[] types = [.. s_enumerations.Keys.Select(value => value.GetType()).Distinct()];
        string[] unpinned = [.. types
            .SelectMany(type => Enum.GetValues(type).Cast<Enum>())
            .Where(value => !s_enumerations.ContainsKey(value))
            .Select(value => $"{value.GetType().Name}.{value} has no C name here")];
        Assert.Empty(unpinned);
        Assert.Empty(s_enumerations.SelectMany(entry => entry.Value.SelectMany(name => Difference(name, Number(entry.Key)))));
    }

    [Fact]
    public void Every_public_enumeration_is_pinned_or_is_ours()
    {
        Type[] ours = [typeof(Errno), typeof(UserfaultfdResult)];
        Assert.Empty(typeof(Userfaultfd).Assembly.GetExportedTypes()
            .Where(type => type.IsEnum)
            .Except(ours)
            .Except(s_enumerations.Keys.Select(value => value.GetType())));
    }

    [Fact]
    public void Every_structure_is_the_headers()
    {
        List<(string Name, ulong Value)> layout = [.. Structures().SelectMany(structure => Layout(structure.Name, structure.Type))];
        Assert.True(layout.Count > 20, "Reflection found hardly any structure.");
        Assert.Empty(layout.SelectMany(item => Difference(item.Name, item.Value)));
    }

    [Fact]
    public void Structures_of_the_same_shape_are_the_headers()
    {
        foreach ((string ours, string theirs, string ourField, string theirField) in s_sameShape)
        {
            Assert.Empty(Difference($"sizeof {theirs}", Value($"sizeof {ours}")));
            if (s_answers.Value.TryGetValue($"{theirs}.{theirField}", out ulong offset))
            {
                Assert.Equal(Value($"{ours}.{ourField}"), offset);
            }
        }
    }

    [Fact]
    public void Every_field_of_a_message_is_read_where_the_headers_put_it()
    {
        Assert.Equal(UserfaultfdEvent.Size, (int)Value("sizeof uffd_msg"));
        AssertField("event", 1, e => (ulong)e.Kind);
        AssertField("arg.pagefault.address", 8, e => e.Address);
        AssertField("arg.pagefault.feat.ptid", 4, e => e.ThreadId);
        AssertField("arg.fork.ufd", 4, e => (uint)e.ForkDescriptor);
        AssertField("arg.remap.from", 8, e => e.RemapFrom);
        AssertField("arg.remap.to", 8, e => e.RemapTo);
        AssertField("arg.remap.len", 8, e => e.RemapLength);
        AssertField("arg.remove.start", 8, e => e.Start);
        AssertField("arg.remove.end", 8, e => e.End);
        AssertFlag("UFFD_PAGEFAULT_FLAG_WRITE", e => e.IsWrite ? 1u : 0);
        AssertFlag("UFFD_PAGEFAULT_FLAG_WP", e => e.IsWriteProtect ? 1u : 0);
        AssertFlag("UFFD_PAGEFAULT_FLAG_MINOR", e => e.IsMinor ? 1u : 0);
    }

    private static void AssertField(string field, int size, EventField read)
    {
        var message = new byte[UserfaultfdEvent.Size];
        message.AsSpan().Fill(0xee);
        ulong expected = 0;
        for (int i = 0; i < size; i++)
        {
            message[(int)Value($"uffd_msg.{field}") + i] = (byte)(i + 1);
            expected |= (ulong)(i + 1) << (8 * i);
        }

        Assert.Equal(expected, read(new UserfaultfdEvent(message)));
    }

    private static void AssertFlag(string flag, EventField isSet)
    {
        foreach (byte flags in (byte[])[0, 1, 2, 4, 5, 3, 7])
        {
            var message = new byte[UserfaultfdEvent.Size];
            message[(int)Value("uffd_msg.arg.pagefault.flags")] = flags;
            Assert.Equal((flags & Value(flag)) != 0 ? 1UL : 0, isSet(new UserfaultfdEvent(message)));
        }
    }

    private static IEnumerable<(string Name, string? Macro, string Expression)> Questions()
    {
        foreach (string name in Constants().Select(constant => constant.Name)
            .Concat(Enum.GetNames<Errno>().Where(name => name != nameof(Errno.None)))
            .Concat(s_enumerations.Values.SelectMany(names => names))
            .Concat(["UFFD_PAGEFAULT_FLAG_WRITE", "UFFD_PAGEFAULT_FLAG_WP", "UFFD_PAGEFAULT_FLAG_MINOR"])
            .Distinct(StringComparer.Ordinal))
        {
            bool isMacro = name.All(c => char.IsAsciiLetterOrDigit(c) || c == '_') && !char.IsAsciiDigit(name[0]);
            yield return (name, isMacro ? name : null, name);
        }

        foreach ((string structure, Type type) in Structures())
        {
            string? macro = s_macroOfStructure.GetValueOrDefault(structure);
            foreach ((string name, _) in Layout(structure, type))
            {
                yield return (name, macro, Expression(name));
            }
        }

        foreach ((_, string theirs, _, string theirField) in s_sameShape)
        {
            string? macro = s_macroOfStructure.GetValueOrDefault(theirs);
            yield return ($"sizeof {theirs}", macro, Expression($"sizeof {theirs}"));
            yield return ($"{theirs}.{theirField}", macro, Expression($"{theirs}.{theirField}"));
        }

        string[] message =
        [
            "event", "arg.pagefault.flags", "arg.pagefault.address", "arg.pagefault.feat.ptid", "arg.fork.ufd",
            "arg.remap.from", "arg.remap.to", "arg.remap.len", "arg.remove.start", "arg.remove.end",
        ];
        yield return ("sizeof uffd_msg", null, Expression("sizeof uffd_msg"));
        foreach (string field in message)
        {
            yield return ($"uffd_msg.{field}", null, Expression($"uffd_msg.{field}"));
        }
    }

    private static IEnumerable<(string Name, ulong Value)> Constants()
    {
        foreach (FieldInfo field in typeof(Interop).GetFields(Statics))
        {
            yield return (field.Name, Number(field.GetValue(null)!));
        }

        foreach (PropertyInfo property in typeof(Interop).GetProperties(Statics))
        {
            yield return (property.Name, Number(property.GetValue(null)!));
        }
    }

    private static IEnumerable<(string Name, Type Type)> Structures() =>
        typeof(Interop).GetNestedTypes(BindingFlags.NonPublic | BindingFlags.Public).Where(type => type.IsValueType)
            .Select(type => (type.Name, type))
            .Append(("page_region", typeof(PageRange)));

    /// <summary>"sizeof STRUCT", and for each field "STRUCT.FIELD" (the offset) and "sizeof STRUCT.FIELD".</summary>
    private static IEnumerable<(string Name, ulong Value)> Layout(string structure, Type type)
    {
        yield return ($"sizeof {structure}", SizeOf(type));
        foreach (FieldInfo field in type.GetFields(Instances))
        {
            yield return ($"{structure}.{CName(field)}", (ulong)Marshal.OffsetOf(type, field.Name));
            yield return ($"sizeof {structure}.{CName(field)}", SizeOf(field.FieldType));
        }
    }

    /// <summary>The field of a positional record is called after its property: "&lt;Start&gt;k__BackingField".</summary>
    private static string CName(FieldInfo field) =>
        field.Name[0] == '<' ? field.Name[1..field.Name.IndexOf('>', StringComparison.Ordinal)].ToLowerInvariant() : field.Name;

    private static string Expression(string name)
    {
        const string SizeOf = "sizeof ";
        bool isSize = name.StartsWith(SizeOf, StringComparison.Ordinal);
        string[] parts = (isSize ? name[SizeOf.Length..] : name).Split('.', 2);
        return (isSize, parts.Length) switch
        {
            (true, 1) => $"sizeof(struct {parts[0]})",
            (true, _) => $"sizeof(((struct {parts[0]} *)0)->{parts[1]})",
            _ => $"offsetof(struct {parts[0]}, {parts[1]})",
        };
    }

    private static ulong SizeOf(Type type) => (ulong)(int)typeof(Unsafe)
        .GetMethod(nameof(Unsafe.SizeOf))!
        .MakeGenericMethod(type.IsPointer ? typeof(nint) : type)
        .Invoke(null, null)!;

    private static ulong Number(object value) => value switch
    {
        nint number => (ulong)number,
        nuint number => number,
        ulong number => number,
        Enum number => Number(Convert.ChangeType(number, Enum.GetUnderlyingType(number.GetType()), CultureInfo.InvariantCulture)),
        _ => unchecked((ulong)Convert.ToInt64(value, CultureInfo.InvariantCulture)),
    };

    private static ulong Value(string name) => s_answers.Value[name];

    private static IEnumerable<string> Difference(string name, ulong ours)
    {
        bool isNewer = s_newer.TryGetValue(name, out ulong newer);
        if (name.StartsWith("sizeof ", StringComparison.Ordinal) && s_macroOfStructure.ContainsKey(name["sizeof ".Length..].Split('.')[0]) && name.Contains('.', StringComparison.Ordinal))
        {
            // Every field of the newer structures is a __u64.
            (isNewer, newer) = (true, sizeof(ulong));
        }

        bool isKnown = s_answers.Value.TryGetValue(name, out ulong theirs);
        if (isNewer && newer != ours)
        {
            yield return $"{name} is {ours:x} and has to be {newer:x}";
        }

        if (isKnown ? theirs != ours : !isNewer)
        {
            yield return isKnown ? $"{name} is {ours:x}, but {theirs:x} in C" : $"{name} is not in the headers, and no value is known for it";
        }
    }
}
