using Pageferry.Linux;

namespace Pageferry.Conformance;

/// <summary>D: who is woken when.</summary>
internal static class WakeCases
{
    internal static IEnumerable<ConformanceCase> All =>
    [
        new('D', "dontwake", "MODE_DONTWAKE leaves who waits waiting, until UFFDIO_WAKE", "ioctl_userfaultfd(2)", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(1);
            Touch touch = memory.Read(0);
            _ = memory.NextFault(0);
            arena.Expect(memory.Copy(0, 1, out _, UserfaultfdCopyFlags.DontWake), UserfaultfdResult.Done);
            arena.Expect(touch.Waits, true);
            memory.Userfaultfd.Wake(memory.At(0), memory.PageBytes);
            arena.Expect(touch.Through(), Arena.ContentByte);
        }),
        new('D', "surprise-eexist-wakes-nobody", "a request that ends with EEXIST wakes nobody", "demand_paging_test", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(1);
            Touch touch = memory.Read(0);
            _ = memory.NextFault(0);
            arena.Expect(memory.Copy(0, 1, out _, UserfaultfdCopyFlags.DontWake), UserfaultfdResult.Done);
            arena.Expect(memory.Copy(0, 1, out _), UserfaultfdResult.AlreadyPresent);
            arena.Expect(touch.Waits, true);
            memory.Userfaultfd.Wake(memory.At(0), memory.PageBytes);
            _ = touch.Through();
        }),
        new('D', "wake-refault", "a wake without a page makes the thread touch again: a second message", "observed on 6.18", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(1);
            Touch touch = memory.Read(0);
            _ = memory.NextFault(0);
            memory.Userfaultfd.Wake(memory.At(0), memory.PageBytes);
            _ = memory.NextFault(0);
            memory.Place(0);
            _ = touch.Through();
        }),
        new('D', "many-waiters", "each waiting thread is a message, and one placed page lets all of them go on", "observed on 6.18", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(1);
            Touch[] touches = [memory.Read(0), memory.Read(0), memory.Read(0)];
            _ = memory.NextFault(0);
            _ = memory.NextFault(0);
            _ = memory.NextFault(0);
            memory.Place(0);
            foreach (Touch touch in touches)
            {
                arena.Expect(touch.Through(), Arena.ContentByte);
            }
        }),
        new('D', "partial-wakes-the-done-part", "a partial copy wakes who waits for the part that was done", "observed on 6.18", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(3);
            memory.Place(1);
            Touch touch = memory.Read(0);
            _ = memory.NextFault(0);
            arena.Expect(memory.Copy(0, 3, out _), UserfaultfdResult.Retry);
            arena.Expect(touch.Through(), Arena.ContentByte);
        }),
        new('D', "wake-unregistered", "UFFDIO_WAKE of a range that is not registered is no error; of no length it is EINVAL", "observed on 6.18", ConformanceCase.All, arena =>
        {
            using Armed memory = arena.ArmMissing(1);
            memory.Userfaultfd.Unregister(memory.At(0), memory.PageBytes);
            memory.Userfaultfd.Wake(memory.At(0), memory.PageBytes);
            arena.ExpectRefusal(() => memory.Userfaultfd.Wake(memory.At(0), 0), Errno.EINVAL);
        }),
    ];
}
