using Pageferry.Memory;

namespace Pageferry.Criu.Tests;

/// <summary>A child whose userfaultfd closed with the daemon that had it is found among its family.</summary>
[Collection(nameof(Undisturbed))]
public sealed class LostChildrenTests : IDisposable
{
    private const ulong Pages = 64;

    private readonly LazyGuest _guest = new(Pages);

    public void Dispose() => _guest.Dispose();

    [Fact]
    public void The_newest_children_without_a_userfaultfd_are_ended_and_nobody_else()
    {
        _guest.Start(_guest.OpenImages());
        Assert.True(_guest.Reads(0, Pages / 2));
        ulong half = _guest.Fork()('r', 0, Pages / 2);

        // It has all of its pages: its userfaultfd was closed in good order.
        Func<char, ulong, ulong, ulong> whole = _guest.Fork();
        NextChild().Memory.Dispose();
        NextChild().Memory.Dispose();
        Func<char, ulong, ulong, ulong> kept = _guest.Fork();
        FaultEngine keptEngine = NextChild();
        Func<char, ulong, ulong, ulong> lost = _guest.Fork();
        NextChild().Memory.Dispose();
        GuestRegion[] ranges = [new(_guest.Address, Pages * LazyGuest.PageBytes)];
        Assert.Empty(LostChildren.End(_guest.Pid, [new(Page.Size, Page.Size)], 1));
        int ended = Assert.Single(LostChildren.End(_guest.Pid, ranges, 1));
        Assert.NotEqual(_guest.Pid, ended);
        Assert.True(SpinWait.SpinUntil(() => HasEnded(ended), LazyGuest.Patience));

        // If it has ended by itself, an older one is not ended in its place.
        Assert.Empty(LostChildren.End(_guest.Pid, ranges, 1));
        Assert.Equal(half, whole('r', 0, Pages / 2));
        Assert.Equal(half, kept('r', 0, Pages / 2));
        Assert.True(_guest.Reads(0, Pages));
        keptEngine.Memory.Dispose();

        // Without a connection it would have ended by itself.
        GC.KeepAlive(lost);
    }

    private static bool HasEnded(int pid)
    {
        try
        {
            return File.ReadLines($"/proc/{pid}/status").Any(static line => line.StartsWith("State:\tZ", StringComparison.Ordinal));
        }
        catch (IOException)
        {
            return true;
        }
    }

    private FaultEngine NextChild()
    {
        FaultEngine? child = null;
        Assert.True(SpinWait.SpinUntil(() => _guest.Children.TryDequeue(out child), LazyGuest.Patience));
        return child!;
    }
}
