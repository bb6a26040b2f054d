using System.Runtime.InteropServices;

namespace Pageferry.Linux.Tests;

public class LinuxExceptionTests
{
    [Fact]
    public void It_says_what_was_tried_the_errno_and_what_to_do()
    {
        var failure = new LinuxException("map 4096 bytes of memfd guest", Errno.ENOMEM, "Free some memory.");
        Assert.Equal("Could not map 4096 bytes of memfd guest: ENOMEM (Cannot allocate memory). Free some memory.", failure.Message);
        Assert.Equal("map 4096 bytes of memfd guest", failure.Operation);
        Assert.Equal(Errno.ENOMEM, failure.Errno);
        Assert.Equal((int)Errno.ENOMEM, failure.HResult);
    }

    [Fact]
    public void Without_advice_it_ends_with_the_errno() =>
        Assert.Equal("Could not try: EBADF (Bad file descriptor).", new LinuxException("try", Errno.EBADF).Message);

    [Fact]
    public void An_errno_without_a_name_is_told_by_number() =>
        Assert.StartsWith("Could not try: errno 4000 (", new LinuxException("try", (Errno)4000).Message, StringComparison.Ordinal);

    [Fact]
    public void The_last_calls_errno_is_taken()
    {
        Assert.Equal(-1, Interop.Close(-1));
        Assert.Equal(Errno.EBADF, LinuxException.FromLastError("close").Errno);
        Marshal.SetLastPInvokeError((int)Errno.EPERM);
        Assert.Equal(Errno.EPERM, LinuxException.FromLastError("try").Errno);
    }

    [Fact]
    public void A_descriptor_that_is_closed_can_not_be_duplicated()
    {
        LinuxException failure = Assert.Throws<LinuxException>(() => new FileDescriptor(-1).Duplicate());
        Assert.Equal("Could not duplicate file descriptor -1: EBADF (Bad file descriptor).", failure.Message);
    }
}
