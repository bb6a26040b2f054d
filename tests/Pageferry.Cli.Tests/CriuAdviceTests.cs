namespace Pageferry.Cli.Tests;

/// <summary>What CRIU 4.1 and 4.2 were seen to say, and what is to be done then.</summary>
public sealed class CriuAdviceTests
{
    [Theory]
    [InlineData("(00.012345) Error (criu/uffd.c:270): uffd: Unable to open an userfaultfd descriptor: Operation not permitted", "vm.unprivileged_userfaultfd=1")]
    [InlineData("(00.012345) Error (criu/files-ext.c:98): Can't dump file 5 of that type [600] (anon anon_inode:[userfaultfd])", "itself can't be dumped")]
    [InlineData("(00.012345) 12345: Error (criu/sk-inet.c:1033): inet: Can't bind inet socket (id 26): Address already in use", "a network namespace of its own")]
    [InlineData("(00.012345) Error (criu/cr-dump.c:100): Can't seize: Operation not permitted", "CAP_SYS_PTRACE")]
    public void A_remedy_that_is_known_is_given(string error, string remedy)
    {
        string advice = CriuAdvice.Explain([error, "(00.1) Warn  (criu/kerndat.c:1): Something else"]);
        Assert.Contains(remedy, advice, StringComparison.Ordinal);
        Assert.DoesNotContain("Error (", advice, StringComparison.Ordinal);
    }

    [Fact]
    public void A_userfaultfd_that_is_not_permitted_is_not_one_that_the_process_has() =>
        Assert.DoesNotContain("itself can't be dumped", CriuAdvice.Explain(["Error (criu/uffd.c:270): Unable to open an userfaultfd descriptor: Operation not permitted"]), StringComparison.Ordinal);
}
