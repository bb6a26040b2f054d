using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Pageferry.Memory;

namespace Pageferry.Criu.Tests;

/// <summary>Pages reach a process from images and from a page server, whatever the server does: it stalls or has the right bytes.</summary>
[Collection(nameof(Undisturbed))]
public sealed class LazyContentTests : IDisposable
{
    private const ulong Pages = 2048;

    private static readonly IPEndPoint s_anyPort = new(IPAddress.Loopback, 0);
    private static readonly TimeSpan s_silence = TimeSpan.FromMilliseconds(300);

    private readonly LazyGuest _guest = new(Pages);

    /// <summary>How many requests were answered by <see cref="BeginToAnswer"/>.</summary>
    private volatile int _answers;

    public void Dispose() => _guest.Dispose();

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_fault_allocates_nothing(bool isRemote)
    {
        // What is counted is the whole process: whoever places the pages does it, and so may a runtime that replaces code, or a timer. Less than the smallest
        // object for each fault, once, shows that there is none for each.
        const int SmallestObject = 24;
        const int Attempts = 8;
        const ulong Part = Pages / Attempts;
        const ulong Reads = Part / 2;
        using var server = PageServer.Start(_guest.Images.Folder, s_anyPort);
        _guest.Start(isRemote ? Connect(server) : _guest.OpenImages());
        long least = long.MaxValue;
        for (ulong part = 0; part < Attempts; part++)
        {
            long faults = _guest.Lazy.Statistics.Faults;
            long before = GC.GetTotalAllocatedBytes(precise: true);
            Assert.True(_guest.ReadsFromBehind(part * Part, Reads));
            least = Math.Min(least, GC.GetTotalAllocatedBytes(precise: true) - before);
            Assert.True(_guest.Lazy.Statistics.Faults - faults > (long)Reads / 2);
        }

        Assert.True(least < SmallestObject * (long)Reads, $"{least} bytes for {Reads} faults.");
    }

    [Fact]
    public async Task A_server_that_is_gone_is_looked_for_and_asked_again()
    {
        Task<bool> read;
        IPEndPoint at;
        using (var server = PageServer.Start(_guest.Images.Folder, s_anyPort))
        {
            at = server.EndPoint;
            _guest.Start(Connect(server));
            Assert.True(_guest.Reads(0, 100));
        }

        Task complete = _guest.CompleteAsync(BackgroundFill.Sequential);
        await _guest.AwaitLogAsync("It closed the connection");
        await _guest.AwaitLogAsync("nothing listens there");
        read = _guest.ReadsAsync(0, Pages);
        await AwaitAsync(() => _guest.Lazy.States.CountRun(0, Pages, PageState.Present) < Pages && _guest.Log.Contains("looked for", StringComparison.Ordinal));
        Assert.False(read.IsCompleted);
        Assert.False(complete.IsCompleted);

        using var again = PageServer.Start(_guest.Images.Folder, at);
        Assert.True(await read.WaitAsync(LazyGuest.Patience));
        await complete.WaitAsync(LazyGuest.Patience);
        Assert.Contains("requests were repeated", _guest.Log, StringComparison.Ordinal);
    }

    public static TheoryData<string, string> BadAnswers => new()
    {
        { "another address", "it answered with" },
        { "another process", "it answered with" },
        { "too many", "it answered with" },
        { "nothing", "It does not have the page" },
        { "no answer's command", "it answered with" },
        { "part of a page", "It closed the connection" },
        { "end", "It closed the connection" },
        { "silence", "has said nothing for 0.3 s, asked for" },
        { "half a header", "has said nothing for 0.3 s, asked for" },
    };

    [Theory]
    [MemberData(nameof(BadAnswers))]
    public async Task A_server_that_answers_what_makes_no_sense_is_left_and_said_why(string answer, string says)
    {
        using var listening = new TcpListener(IPAddress.Loopback, 0);
        listening.Start();
        var at = (IPEndPoint)listening.LocalEndpoint;
        _guest.Start(new RemoteContent(at, PageServerForm.Header32, _guest, s_silence).Connect());
        Task<bool> read = _guest.ReadsAsync(0, Pages);
        using (Socket bad = await listening.AcceptSocketAsync(TestContext.Current.CancellationToken))
        {
            // The next one finds a real server.
            listening.Stop();
            Answer(bad, answer);
            await _guest.AwaitLogAsync(says);
        }

        // Which of the two is of which version is the first thing to look at.
        Assert.Contains("with headers of 32 bytes: the server may be of CRIU 4.1", _guest.Log, StringComparison.Ordinal);
        Assert.False(read.IsCompleted);
        using var server = PageServer.Start(_guest.Images.Folder, at);
        Assert.True(await read.WaitAsync(LazyGuest.Patience));
    }

    [Fact]
    public async Task A_server_that_sends_what_nobody_asked_for_is_left_and_said_why()
    {
        using var listening = new TcpListener(IPAddress.Loopback, 0);
        listening.Start();
        var at = (IPEndPoint)listening.LocalEndpoint;
        _guest.Start(new RemoteContent(at, PageServerForm.Header32, _guest, s_silence).Connect());
        using (Socket bad = await listening.AcceptSocketAsync(TestContext.Current.CancellationToken))
        {
            listening.Stop();
            var answer = new byte[PageServerMessage.MostBytes + (int)LazyGuest.PageBytes];
            Array.Fill(answer, (byte)0xEE);
            new PageServerMessage(PageServerCommand.AddWithFlags, PagemapFlags.Present, 1, _guest.Address, TestImages.Pid).Write(answer, PageServerForm.Header32);
            _ = bad.Send(answer);
            await _guest.AwaitLogAsync("pages that nobody asked for");
        }

        using var server = PageServer.Start(_guest.Images.Folder, at);
        Assert.True(await _guest.ReadsAsync(0, Pages).WaitAsync(LazyGuest.Patience));
    }

    [Fact]
    public async Task A_server_that_answers_with_less_than_it_was_asked_for_is_asked_again()
    {
        using var listening = new TcpListener(IPAddress.Loopback, 0);
        listening.Start();
        _guest.Start(new RemoteContent((IPEndPoint)listening.LocalEndpoint, PageServerForm.Header32, _guest, RemoteContent.LongestSilence).Connect());
        using Socket client = await listening.AcceptSocketAsync(TestContext.Current.CancellationToken);
        BeginToAnswer(client);
        Task complete = _guest.CompleteAsync(BackgroundFill.Sequential);
        Assert.True(await _guest.ReadsAsync(0, Pages).WaitAsync(LazyGuest.Patience));
        await complete.WaitAsync(LazyGuest.Patience);
        Assert.InRange(_answers, (int)Pages / 2, (int)Pages);
        Assert.DoesNotContain("failed", _guest.Log, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_server_that_is_silent_for_long_and_takes_no_other_connection_is_waited_for()
    {
        using var listening = new TcpListener(IPAddress.Loopback, 0);
        listening.Start();
        _guest.Start(new RemoteContent((IPEndPoint)listening.LocalEndpoint, PageServerForm.Header32, _guest, s_silence).Connect());
        using Socket client = await listening.AcceptSocketAsync(TestContext.Current.CancellationToken);
        listening.Stop();
        Task<bool> read = _guest.ReadsAsync(0, Pages);
        await _guest.AwaitLogAsync("has said nothing for 0.3 s, asked for");
        await Task.Delay(3 * s_silence, TestContext.Current.CancellationToken);
        Assert.False(read.IsCompleted);
        BeginToAnswer(client);
        Assert.True(await read.WaitAsync(LazyGuest.Patience));
        Assert.DoesNotContain("failed", _guest.Log, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_server_that_is_silent_is_left_when_another_connection_is_answered()
    {
        using var listening = new TcpListener(IPAddress.Loopback, 0);
        listening.Start();
        var at = (IPEndPoint)listening.LocalEndpoint;
        _guest.Start(new RemoteContent(at, PageServerForm.Header32, _guest, s_silence).Connect());
        using Socket silent = await listening.AcceptSocketAsync(TestContext.Current.CancellationToken);
        listening.Stop();
        using var server = PageServer.Start(_guest.Images.Folder, at);
        Task complete = _guest.CompleteAsync(BackgroundFill.Sequential);
        Assert.True(await _guest.ReadsAsync(0, Pages).WaitAsync(LazyGuest.Patience));
        await complete.WaitAsync(LazyGuest.Patience);
        Assert.Contains("answers over another connection", _guest.Log, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_process_that_ends_while_its_server_is_silent_is_done_with()
    {
        using var listening = new TcpListener(IPAddress.Loopback, 0);
        listening.Start();
        _guest.Start(new RemoteContent((IPEndPoint)listening.LocalEndpoint, PageServerForm.Header24, _guest, RemoteContent.LongestSilence).Connect());
        Task complete = _guest.CompleteAsync(BackgroundFill.Sequential);
        using Socket silent = await listening.AcceptSocketAsync(TestContext.Current.CancellationToken);
        var requests = new byte[2 * PageServerMessage.LeastBytes];
        for (int received = 0; received < requests.Length;)
        {
            received += silent.Receive(requests.AsSpan(received));
        }

        _guest.Kill();
        await complete.WaitAsync(LazyGuest.Patience);
    }

    [Theory]
    [InlineData(BackgroundFill.Sequential, 256)]
    [InlineData(BackgroundFill.Locality, 1500 - 64)]
    public async Task The_background_goes_on_in_its_order(BackgroundFill background, int next)
    {
        using var content = new HeldContent(_guest.OpenImages());
        _guest.Start(content);
        Task complete = _guest.CompleteAsync(background);
        Assert.True(content.IsHeld.Wait(LazyGuest.Patience));
        Assert.True(_guest.Reads(1500, 1));
        content.Release();
        await complete.WaitAsync(LazyGuest.Patience);
        Assert.Equal([0UL, (ulong)next], content.Filled.Take(2));
        Assert.True(_guest.Reads(0, Pages));
        Assert.Equal((long)Pages, _guest.Lazy.Statistics.DemandPages + _guest.Lazy.Statistics.BackgroundPages);
    }

    [Fact]
    public async Task The_background_is_held_to_its_bandwidth()
    {
        const long BytesPerSecond = 16 << 20;
        _guest.Start(_guest.OpenImages());
        var clock = Stopwatch.StartNew();
        await _guest.CompleteAsync(BackgroundFill.Sequential, BytesPerSecond).WaitAsync(LazyGuest.Patience);

        // What was fetched last is paid for by nobody: who comes next would wait for it.
        Assert.True(clock.Elapsed.TotalSeconds > 0.7 * Pages * LazyGuest.PageBytes / BytesPerSecond, $"{clock.Elapsed}");
    }

    /// <summary>Answers requests with one page, or two, and never more.</summary>
    private void BeginToAnswer(Socket client) =>
        _ = Task.Run(() =>
        {
            var bytes = new byte[PageServerMessage.MostBytes + (2 * (int)LazyGuest.PageBytes)];
            while (client.Receive(bytes.AsSpan(0, PageServerMessage.MostBytes)) == PageServerMessage.MostBytes)
            {
                var request = PageServerMessage.Read(bytes, PageServerForm.Header32);
                if (request.Command != PageServerCommand.Get)
                {
                    return;
                }

                int pages = (int)Math.Min(request.Pages, 1 + ((ulong)_answers % 2));
                for (int page = 0; page < pages; page++)
                {
                    bytes.AsSpan(PageServerMessage.MostBytes + (page * (int)LazyGuest.PageBytes), (int)LazyGuest.PageBytes).Fill((byte)(((request.Address - _guest.Address) / LazyGuest.PageBytes) + (ulong)page));
                }

                (request with { Command = PageServerCommand.AddWithFlags, Flags = PagemapFlags.Present, Pages = (ulong)pages }).Write(bytes, PageServerForm.Header32);
                _ = client.Send(bytes.AsSpan(0, PageServerMessage.MostBytes + (pages * (int)LazyGuest.PageBytes)));
                _answers++;
            }
        });

    private static async Task AwaitAsync(Func<bool> holds)
    {
        using var limit = new CancellationTokenSource(LazyGuest.Patience);
        while (!holds())
        {
            await Task.Delay(10, limit.Token);
        }
    }

    private static void Answer(Socket client, string answer)
    {
        var request = new byte[PageServerMessage.MostBytes];
        for (int received = 0; received < request.Length;)
        {
            received += client.Receive(request.AsSpan(received));
        }

        PageServerMessage good = PageServerMessage.Read(request, PageServerForm.Header32) with { Command = PageServerCommand.AddWithFlags, Flags = PagemapFlags.Present };
        var header = new byte[PageServerMessage.MostBytes];
        (answer switch
        {
            "another address" => good with { Address = good.Address + LazyGuest.PageBytes },
            "another process" => good with { Id = good.Id + 1 },
            "too many" => good with { Pages = good.Pages + 1 },
            "nothing" => good with { Pages = 0 },
            "no answer's command" => good with { Command = PageServerCommand.Get },
            _ => good,
        }).Write(header, PageServerForm.Header32);
        switch (answer)
        {
            case "end":
                client.Shutdown(SocketShutdown.Both);
                break;
            case "silence":
                break;
            case "half a header":
                _ = client.Send(header.AsSpan(0, 9));
                break;
            case "part of a page":
                _ = client.Send((byte[])[.. header, .. Enumerable.Repeat((byte)0xEE, 1000)]);
                client.Shutdown(SocketShutdown.Both);
                break;
            default:
                _ = client.Send((byte[])[.. header, .. Enumerable.Repeat((byte)0xEE, 17 * (int)LazyGuest.PageBytes)]);
                break;
        }
    }

    private RemoteContent Connect(PageServer server) => new RemoteContent(server.EndPoint, PageServerForm.Header32, _guest, RemoteContent.LongestSilence).Connect();

    /// <summary>Images whose first pages in the background come when the test says so.</summary>
    private sealed class HeldContent(IContent content) : IContent
    {
        private readonly ManualResetEventSlim _go = new();
        private readonly List<ulong> _filled = [];

        internal ManualResetEventSlim IsHeld { get; } = new();

        internal IReadOnlyList<ulong> Filled => _filled;

        public int Fillers => 1;

        public PageLane[] CreateLanes(FaultEngine engine) => content.CreateLanes(engine);

        public void Demand(LazyProcess process, ReadOnlySpan<ulong> pages) => content.Demand(process, pages);

        public void Fill(LazyProcess process, int filler, ulong page, int count)
        {
            _filled.Add(page);
            IsHeld.Set();
            _go.Wait();
            content.Fill(process, filler, page, count);
        }

        public void Dispose()
        {
            _go.Set();
            content.Dispose();
        }

        internal void Release() => _go.Set();
    }
}
