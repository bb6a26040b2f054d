using System.Net.Sockets;
using System.Text;
using CsCheck;

namespace Pageferry.Cli.Tests;

public sealed class ControlSocketTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    private string SocketPath => _directory.Path("control.sock");

    public void Dispose() => _directory.Dispose();

    [Fact]
    public async Task A_request_is_answered_by_progress_and_a_last_line()
    {
        await using ControlServer server = ControlServer.Start(SocketPath, async (request, answer) =>
        {
            await answer(new ControlAnswer { Event = ControlAnswer.Progress, Message = request.To });
            await answer(new ControlAnswer { Event = ControlAnswer.Done, Message = request.Command });
        });
        using var client = ControlClient.Connect(SocketPath);
        var answers = new List<string?>();
        await foreach (ControlAnswer answer in client.AskAsync(new ControlRequest { Command = "migrate", To = "127.0.0.1:1" }, default))
        {
            answers.Add(answer.Message);
        }

        Assert.Equal(["127.0.0.1:1", "migrate"], answers);
    }

    [Fact]
    public async Task A_refusal_reaches_the_client_as_its_message()
    {
        await using ControlServer server = ControlServer.Start(SocketPath, (_, _) => throw new CommandException("not now"));
        using var client = ControlClient.Connect(SocketPath);
        CommandException refused = await Assert.ThrowsAsync<CommandException>(() => client.StatusAsync(default));
        Assert.Equal("not now", refused.Message);
    }

    [Fact]
    public async Task A_failure_that_nobody_thought_of_is_answered_too()
    {
        await using ControlServer server = ControlServer.Start(
            SocketPath, (request, answer) => request.Command is "fail" ? throw new InvalidOperationException("not at all") : answer(new ControlAnswer { Event = ControlAnswer.Done, Message = "here" }));
        using var client = ControlClient.Connect(SocketPath);
        CommandException refused = await Assert.ThrowsAsync<CommandException>(() => client.LastStatusAsync(new ControlRequest { Command = "fail" }, default));
        Assert.Equal("not at all", refused.Message);
        await foreach (ControlAnswer answer in client.AskAsync(new ControlRequest { Command = "again" }, default))
        {
            Assert.Equal("here", answer.Message);
        }
    }

    [Fact]
    public async Task Only_the_owner_can_connect()
    {
        await using ControlServer server = ControlServer.Start(SocketPath, Ignore);
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(SocketPath));
    }

    [Fact]
    public async Task The_socket_is_removed_at_the_end()
    {
        await using (ControlServer.Start(SocketPath, Ignore))
        {
            Assert.True(Path.Exists(SocketPath));
        }

        Assert.False(Path.Exists(SocketPath));
    }

    [Fact]
    public async Task A_path_where_a_guest_listens_is_refused_and_the_guest_stays()
    {
        await using ControlServer first = ControlServer.Start(SocketPath, Ignore);
        CommandException refused = Assert.Throws<CommandException>(() => ControlServer.Start(SocketPath, Ignore));
        Assert.Contains("a running guest listens there", refused.Message, StringComparison.Ordinal);
        Assert.Contains($"vm stop --control {SocketPath}", refused.Message, StringComparison.Ordinal);
        ControlClient.Connect(SocketPath).Dispose();
    }

    [Fact]
    public void A_file_at_the_path_is_refused_and_left_alone()
    {
        File.WriteAllText(SocketPath, "precious");
        CommandException refused = Assert.Throws<CommandException>(() => ControlServer.Start(SocketPath, Ignore));
        Assert.Contains("left as it is", refused.Message, StringComparison.Ordinal);
        Assert.Equal("precious", File.ReadAllText(SocketPath));
    }

    [Fact]
    public void A_directory_at_the_path_is_refused_and_left_alone()
    {
        _ = Directory.CreateDirectory(SocketPath);
        _ = Assert.Throws<CommandException>(() => ControlServer.Start(SocketPath, Ignore));
        Assert.True(Directory.Exists(SocketPath));
    }

    [Fact]
    public void A_directory_that_is_missing_is_named()
    {
        string path = _directory.Path("missing/control.sock");
        CommandException refused = Assert.Throws<CommandException>(() => ControlServer.Start(path, Ignore));
        Assert.Contains(path, refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_socket_that_a_dead_process_left_is_replaced()
    {
        using (PageferryProcess killed = PageferryProcess.Start("vm", "receive", "--listen", "127.0.0.1:0", "--control", SocketPath))
        {
            await killed.WaitUntilAsync(() => killed.Output.Contains("Waits for a guest", StringComparison.Ordinal), "the socket");
            killed.Kill();
            await killed.WaitForExitAsync();
        }

        Assert.True(Path.Exists(SocketPath));
        await using ControlServer server = ControlServer.Start(SocketPath, Ignore);
        ControlClient.Connect(SocketPath).Dispose();
    }

    [Fact]
    public void A_path_where_nobody_listens_is_named()
    {
        CommandException refused = Assert.Throws<CommandException>(() => ControlClient.Connect(SocketPath));
        Assert.Contains(SocketPath, refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Requests_in_pieces_and_several_at_once_are_answered_in_order()
    {
        await using ControlServer server = ControlServer.Start(
            SocketPath, (request, answer) => answer(new ControlAnswer { Event = ControlAnswer.Done, Message = request.Command }));
        using Socket client = Connect();
        _ = client.Send("{\"comm"u8);
        await Task.Delay(20);
        _ = client.Send("and\":\"a\"}\n{\"command\":\"b\"}\n{\"command\":\"c\"}\n"u8);
        using var reader = new StreamReader(new NetworkStream(client));
        foreach (string expected in (string[])["a", "b", "c"])
        {
            Assert.Contains($"\"message\":\"{expected}\"", await reader.ReadLineAsync(), StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task A_request_without_end_is_refused()
    {
        await using ControlServer server = ControlServer.Start(SocketPath, Ignore);
        using Socket client = Connect();
        _ = client.Send(new byte[16384]);
        using var reader = new StreamReader(new NetworkStream(client));
        Assert.Contains("at most 16384 bytes", await reader.ReadLineAsync(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task No_bytes_stop_the_server()
    {
        await using ControlServer server = ControlServer.Start(
            SocketPath, (request, answer) => answer(new ControlAnswer { Event = ControlAnswer.Done, Message = request.Command }));
        await Gen.Byte.Array[0, 200].SampleAsync(
            async bytes =>
            {
                using (Socket garbage = Connect())
                {
                    _ = garbage.Send(bytes);
                    _ = garbage.Send("\n"u8);
                }

                using Socket client = Connect();
                _ = client.Send("{\"command\":\"still there\"}\n"u8);
                using var reader = new StreamReader(new NetworkStream(client));
                Assert.Contains("still there", await reader.ReadLineAsync(), StringComparison.Ordinal);
            },
            iter: 200,
            threads: 1);
    }

    [Fact]
    public async Task A_client_that_leaves_during_its_request_stops_nobody()
    {
        var left = new TaskCompletionSource();
        await using ControlServer server = ControlServer.Start(SocketPath, async (request, answer) =>
        {
            if (request.Command is "slow")
            {
                await left.Task;
            }

            await answer(new ControlAnswer { Event = ControlAnswer.Done, Message = "here" });
        });
        using (Socket client = Connect())
        {
            _ = client.Send(Encoding.UTF8.GetBytes("{\"command\":\"slow\"}\n"));
        }

        left.SetResult();
        using var other = ControlClient.Connect(SocketPath);
        await foreach (ControlAnswer answer in other.AskAsync(new ControlRequest { Command = "quick" }, default))
        {
            Assert.Equal("here", answer.Message);
        }
    }

    private static Task Ignore(ControlRequest request, Func<ControlAnswer, Task> answer) => Task.CompletedTask;

    private Socket Connect()
    {
        var client = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { ReceiveTimeout = 10_000 };
        client.Connect(new UnixDomainSocketEndPoint(SocketPath));
        return client;
    }
}
