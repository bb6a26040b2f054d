namespace Pageferry.Linux.Tests;

public class MemoryFileTests
{
    private const ulong Page = 4096;

    [Fact]
    public void Content_and_holes_are_found()
    {
        using MemoryFile file = MemoryFile.Create("holes", 8 * Page);
        using MappedRegion view = MappedRegion.MapShared(file.Descriptor, 0, 8 * Page);
        Assert.Equal(8 * Page, file.NextData(0));
        Assert.Equal(0UL, file.NextHole(0));
        view.Span(2 * Page, 1)[0] = 1;
        view.Span(3 * Page, 1)[0] = 1;
        Assert.Equal(2 * Page, file.NextData(0));
        Assert.Equal(4 * Page, file.NextHole(2 * Page));
        Assert.Equal(8 * Page, file.NextData(4 * Page));
        Assert.Equal(8 * Page, file.NextData(8 * Page));
        file.PunchHole(2 * Page, Page);
        Assert.Equal(3 * Page, file.NextData(0));
        Assert.Equal(0, view.Span(2 * Page, 1)[0]);
    }

    [Fact]
    public void A_file_that_was_handed_over_has_its_length_and_content()
    {
        using MemoryFile file = MemoryFile.Create("handed", 3 * Page);
        using MappedRegion view = MappedRegion.MapShared(file.Descriptor, Page, Page);
        view.Span(5, 1)[0] = 99;
        using MemoryFile copy = MemoryFile.FromDescriptor(file.Descriptor.Duplicate(), "copy");
        Assert.Equal(3 * Page, copy.Length);
        using MappedRegion other = MappedRegion.MapShared(copy.Descriptor, Page, Page);
        Assert.Equal(99, other.Span(5, 1)[0]);
    }

    [Fact]
    public void Huge_pages_are_used_or_their_reservation_is_asked_for()
    {
        const ulong Huge = 2 << 20;
        string reserved = File.ReadAllText("/proc/sys/vm/nr_hugepages").Trim();
        File.WriteAllText("/proc/sys/vm/nr_hugepages", "4");
        try
        {
            using MemoryFile file = MemoryFile.Create("huge", Huge, hugePages: true);
            using MappedRegion view = MappedRegion.MapShared(file.Descriptor, 0, Huge);
            view.Span(Huge - 1, 1)[0] = 1;
            Assert.Equal(Huge, file.NextHole(0));
            using MappedRegion anonymous = MappedRegion.MapAnonymous(Huge, hugePages: true);
            Assert.Equal(0, anonymous.Span(0, 1)[0]);

            // Mapping reserves nothing; populating more than there is fails.
            using MappedRegion tooMuch = MappedRegion.MapAnonymous(8 * Huge, hugePages: true);
            Assert.Equal(Errno.EFAULT, Assert.Throws<LinuxException>(() => tooMuch.Advise(0, 8 * Huge, MemoryAdvice.PopulateWrite)).Errno);
        }
        finally
        {
            File.WriteAllText("/proc/sys/vm/nr_hugepages", reserved);
        }
    }

    [Fact]
    public void Errors_say_what_was_tried_on_what()
    {
        using MemoryFile file = MemoryFile.Create("small", Page);
        LinuxException failure = Assert.Throws<LinuxException>(() => file.PunchHole(0, 0));
        Assert.Equal(Errno.EINVAL, failure.Errno);
        Assert.Contains("memfd small", failure.Message, StringComparison.Ordinal);
        Assert.Contains("EINVAL", failure.Message, StringComparison.Ordinal);
        Assert.Contains("do this", new LinuxException("try that", Errno.EPERM, "do this.").Message, StringComparison.Ordinal);
        Assert.Contains("errno 999", new LinuxException("try that", (Errno)999).Message, StringComparison.Ordinal);
    }
}
