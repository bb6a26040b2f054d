using Pageferry.Linux;

namespace Pageferry.Conformance;

/// <summary>J: what becomes of who waits when nobody answers any more.</summary>
internal static class CloseCases
{
    internal static IEnumerable<ConformanceCase> All =>
    [
        new('J', "unregister-releases", "unregistering lets who waits go on, with zeros", "ioctl_userfaultfd(2)", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(1);
            Touch touch = memory.Read(0);
            _ = memory.NextFault(0);
            memory.Userfaultfd.Unregister(memory.At(0), memory.PageBytes);
            arena.Expect(touch.Through(), (byte)0);
        }),
        new('J', "surprise-close-hands-out-zeros", "closing the last descriptor lets who waits go on, with zeros in place of the content", "observed on 6.18", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(1);
            Touch touch = memory.Read(0);
            _ = memory.NextFault(0);
            memory.Userfaultfd.Dispose();
            arena.Expect(touch.Through(), (byte)0);
        }),
        new('J', "a-second-descriptor-keeps-it", "closing one of two descriptors changes nothing: who waits waits on", "observed on 6.18", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(1);
            using var kept = Userfaultfd.FromDescriptor(memory.Userfaultfd.Descriptor.Duplicate());
            Touch touch = memory.Read(0);
            _ = memory.NextFault(0);
            memory.Userfaultfd.Dispose();
            arena.Expect(touch.Waits, true);
            arena.Expect(kept.Copy(memory.At(0), arena.Content, memory.PageBytes, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Done);
            arena.Expect(touch.Through(), Arena.ContentByte);
        }),
        new('J', "surprise-reregister-fewer", "registering again with fewer modes changes nothing: a page that is in the file still faults", "observed on 6.18", [MemoryKind.Shmem], arena =>
        {
            using Armed memory = arena.ArmMinor(1);
            _ = memory.Userfaultfd.Register(memory.At(0), memory.PageBytes, UserfaultfdModes.Missing);
            memory.Host!.Span(0, 1)[0] = 5;
            Touch touch = memory.Read(0);
            arena.Expect(memory.NextFault(0).IsMinor, true);
            arena.Expect(memory.Userfaultfd.Continue(memory.At(0), memory.PageBytes, UserfaultfdCopyFlags.None, out _), UserfaultfdResult.Done);
            arena.Expect(touch.Through(), (byte)5);
        }),
        new('J', "surprise-reregister-other", "registering again with another mode replaces the earlier ones: a hole that faulted before is filled with zeros", "observed on 6.18", [MemoryKind.Shmem], arena =>
        {
            using Armed memory = arena.ArmMissing(1, arena.MinorFeature);
            _ = memory.Userfaultfd.Register(memory.At(0), memory.PageBytes, UserfaultfdModes.Minor);
            arena.Expect(memory.Read(0).Through(), (byte)0);
            arena.Expect(memory.IsQuiet, true);
        }),
    ];
}
