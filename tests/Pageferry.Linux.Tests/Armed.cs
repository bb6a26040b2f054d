namespace Pageferry.Linux.Tests;

/// <summary>Memory registered with a userfaultfd, and what is read from it.</summary>
internal sealed class Armed : IDisposable
{
    public const ulong PageBytes = 4096;

    private readonly UserfaultfdEventBuffer _events = new(16);
    private readonly MappedRegion _content = MappedRegion.MapAnonymous(16 * PageBytes);
    private readonly Poll _poll;

    public Armed(MappedRegion region, UserfaultfdModes modes, UserfaultfdFeatures features = UserfaultfdFeatures.None)
    {
        Region = region;
        Userfaultfd = Userfaultfd.Open(features);
        Ioctls = Userfaultfd.Register(region.Address, region.Length, modes);
        _poll = new Poll(Userfaultfd.Descriptor);
        for (ulong page = 0; page < 16; page++)
        {
            _content.Span(page * PageBytes, (int)PageBytes).Fill((byte)(page + 1));
        }
    }

    public MappedRegion Region { get; }

    public Userfaultfd Userfaultfd { get; }

    public ulong Ioctls { get; }

    /// <summary>The address of a page of which every byte is page + 1.</summary>
    public ulong Content(ulong page = 0) => _content.Address + (page * PageBytes);

    public MappedRegion ContentRegion => _content;

    public ulong At(ulong page) => Region.Address + (page * PageBytes);

    /// <summary>Waits for one message.</summary>
    public UserfaultfdEvent Next()
    {
        Assert.Equal(1, _poll.Wait(20_000));
        Assert.Equal(1, Userfaultfd.Read(_events));
        return _events[0];
    }

    public bool HasNone() => _poll.Wait(50) == 0 && Userfaultfd.Read(_events) == 0;

    public UserfaultfdResult Copy(ulong page, ulong count, out long done, UserfaultfdCopyFlags flags = UserfaultfdCopyFlags.None) =>
        Userfaultfd.Copy(At(page), Content(), count * PageBytes, flags, out done);

    public void Dispose()
    {
        Region.Dispose();
        Userfaultfd.Dispose();
        _content.Dispose();
        _events.Dispose();
    }
}
