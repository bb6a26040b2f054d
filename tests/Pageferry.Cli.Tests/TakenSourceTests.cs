using System.Text;
using Pageferry.Linux;

namespace Pageferry.Cli.Tests;

/// <summary>What a source left at a holder is checked before anybody serves it.</summary>
public sealed class TakenSourceTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();
    private readonly EventFd _end = new();
    private readonly Thread _thread;

    public TakenSourceTests()
    {
        var holder = Holder.Listen(SocketPath);
        _thread = new Thread(() =>
        {
            using (holder)
            {
                holder.Run(_end.Descriptor);
            }
        });
        _thread.Start();
    }

    private string SocketPath => _directory.Path("holder.sock");

    public void Dispose()
    {
        _end.Signal();
        _thread.Join();
        _end.Dispose();
        _directory.Dispose();
    }

    [Theory]
    [InlineData("", 2, "JSON")]
    [InlineData("null", 2, "it says nothing")]
    [InlineData("{}", 2, "JSON")]
    [InlineData("""{"version":1,"to":null,"migration":{},"record":""}""", 2, "it does not say how to go on")]
    [InlineData("""{"version":1,"to":"127.0.0.1:1","migration":null,"record":""}""", 2, "it does not say how to go on")]
    [InlineData("""{"version":2,"to":"127.0.0.1:1","migration":{},"record":""}""", 2, "of version 2")]
    [InlineData("""{"version":1,"to":"127.0.0.1:1","migration":{},"record":""}""", 2, "no record of a migration")]
    [InlineData("""{"version":1,"to":"127.0.0.1:1","migration":{},"record":"AAAA"}""", 1, "has 1 files")]
    public async Task What_is_no_record_of_this_build_is_refused_and_kept(string blob, int files, string why)
    {
        byte[] secret = HolderClient.CreateSecret();
        using var file = MemoryFile.Create("test", 4096);
        using (var source = HolderClient.Connect(SocketPath))
        {
            source.Put("guest", secret, HoldStage.LetGo, Encoding.UTF8.GetBytes(blob), [.. Enumerable.Repeat(file.Descriptor, files)]);
            HoldSecret.Write(SocketPath, "guest", secret);
        }

        for (int tries = 0; tries < 2; tries++)
        {
            CommandException refused = await Assert.ThrowsAsync<CommandException>(() => TakenSource.TakeAsync(SocketPath, TestContext.Current.CancellationToken));
            Assert.Contains("Could not serve 'guest'", refused.Message, StringComparison.Ordinal);
            Assert.Contains(why, refused.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task A_secret_that_opens_nothing_is_removed_and_what_is_none_is_left_alone()
    {
        HoldSecret.Write(SocketPath, "gone", HolderClient.CreateSecret());
        string other = $"{SocketPath}.other.secret";
        await File.WriteAllTextAsync(other, "not one", TestContext.Current.CancellationToken);
        CommandException refused = await Assert.ThrowsAsync<CommandException>(() => TakenSource.TakeAsync(SocketPath, TestContext.Current.CancellationToken));
        Assert.Contains("no source that is gone has left anything", refused.Message, StringComparison.Ordinal);
        Assert.False(File.Exists($"{SocketPath}.gone.secret"));
        Assert.True(File.Exists(other));
    }
}
