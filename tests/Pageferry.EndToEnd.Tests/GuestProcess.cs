using System.Diagnostics;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;

namespace Pageferry.EndToEnd.Tests;

/// <summary>A <c>vm run</c> or <c>vm receive</c> process, asked over its control socket.</summary>
internal sealed class GuestProcess : IDisposable
{
    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(120);

    private readonly string _control;

    private GuestProcess(PageferryProcess process, string control)
    {
        Process = process;
        _control = control;
    }

    public PageferryProcess Process { get; }

    /// <summary>Starts a guest.</summary>
    public static Task<GuestProcess> RunAsync(string control, params string[] options) => RunGuestAsync("stamp", control, options);

    /// <summary>Starts a guest by its name or its file.</summary>
    public static Task<GuestProcess> RunGuestAsync(string guest, string control, params string[] options) =>
        StartAsync(control, ["vm", "run", guest, "--control", control, .. options]);

    /// <summary>Starts a guest on a terminal of its own, which is closed when the process here is killed.</summary>
    public static Task<GuestProcess> RunOnTerminalAsync(string control, params string[] options) => StartedAsync(
        PageferryProcess.StartProgram("script", "-qfc", string.Join(' ', [PageferryProcess.Program, "vm", "run", "stamp", "--control", control, .. options]), "/dev/null"), control);

    /// <summary>Starts a guest that was made of two halves.</summary>
    public static Task<GuestProcess> RunFromAsync(string snapshot, string control) => StartAsync(control, ["vm", "run", "--from", snapshot, "--control", control]);

    /// <summary>Starts a process that waits for a guest on a port that the kernel picks.</summary>
    public static async Task<GuestProcess> ReceiveAsync(string control, params string[] options)
    {
        GuestProcess process = await StartAsync(control, ["vm", "receive", "--listen", "127.0.0.1:0", "--control", control, .. options]);
        process.SeeEndpoint();
        return process;
    }

    /// <summary>Starts a process that serves for a source that is gone.</summary>
    public static Task<GuestProcess> ServeAsync(string control, string holder, params string[] options) =>
        StartAsync(control, ["vm", "serve", "--holder", holder, "--control", control, .. options]);

    /// <summary>Starts <c>vm run</c> or <c>vm receive</c> in a network namespace.</summary>
    public static async Task<GuestProcess> StartInAsync(string network, string control, string[] arguments)
    {
        string[] line = NetworkPair.Inside(network, PageferryProcess.Program, [.. arguments, "--control", control]);
        GuestProcess process = await StartedAsync(PageferryProcess.StartProgram(line[0], line[1..]), control);
        process.SeeEndpoint();
        return process;
    }

    /// <summary>The guest's state, as <c>vm status --json</c> has it.</summary>
    public JsonElement Status() => Ask(new { command = "status" }).GetProperty("status");

    public string State => Status().GetProperty("state").GetString()!;

    /// <summary>Where the process waits, or waited, for a guest.</summary>
    public string Endpoint { get; private set; } = string.Empty;

    /// <summary>Begins to move the guest; the answer is a connection to read from.</summary>
    public Task<PageferryProcess> MigrateAsync(string to, params string[] options) =>
        PageferryProcess.RunAsync(["vm", "migrate", "--control", _control, "--to", to, .. options]);

    /// <summary>Begins to move the guest and does not wait for anything.</summary>
    public PageferryProcess BeginMigration(string to, params string[] options) =>
        PageferryProcess.Start(["vm", "migrate", "--control", _control, "--to", to, .. options]);

    /// <summary>Waits until the guest's state satisfies something.</summary>
    public async Task<JsonElement> WaitAsync(Func<JsonElement, bool> holds, string what)
    {
        var clock = Stopwatch.StartNew();
        while (true)
        {
            JsonElement status = Status();
            if (holds(status))
            {
                return status;
            }

            Assert.True(clock.Elapsed < s_limit, $"Waited {s_limit} for: {what}. Status: {status} Output: {Process.Output} Errors: {Process.Errors}");
            await Task.Delay(5);
        }
    }

    public Task<JsonElement> WaitForStateAsync(string state) =>
        WaitAsync(status => status.GetProperty("state").GetString() == state, $"state {state}");

    /// <summary>Waits until the guest has ended so many passes more, and found nothing wrong.</summary>
    public async Task MakePassesAsync(ulong more)
    {
        ulong until = Passes(Status()) + more;
        JsonElement status = await WaitAsync(
            now => Passes(now) >= until || now.TryGetProperty("exit_code", out _),
            $"{more} more passes");
        Assert.False(status.TryGetProperty("exit_code", out _), status.ToString());
        Assert.Equal(0UL, status.GetProperty("pages_wrong").GetUInt64());
    }

    public void Dispose() => Process.Dispose();

    private static ulong Passes(JsonElement status) => status.TryGetProperty("passes", out JsonElement passes) ? passes.GetUInt64() : 0;

    private static Task<GuestProcess> StartAsync(string control, string[] arguments) => StartedAsync(PageferryProcess.Start(arguments), control);

    private static async Task<GuestProcess> StartedAsync(PageferryProcess process, string control)
    {
        await process.WaitUntilAsync(() => process.Output.Length > 0 || process.HasExited, "its first line");
        Assert.False(process.HasExited, process.Errors);
        return new GuestProcess(process, control);
    }

    private void SeeEndpoint() => Endpoint = Status().TryGetProperty("listen", out JsonElement listen) ? listen.GetString()! : string.Empty;

    private JsonElement Ask(object request)
    {
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { ReceiveTimeout = (int)s_limit.TotalMilliseconds };
        socket.Connect(new UnixDomainSocketEndPoint(_control));
        _ = socket.Send(Encoding.UTF8.GetBytes(JsonSerializer.Serialize(request) + "\n"));
        using var reader = new StreamReader(new NetworkStream(socket));
        using var answer = JsonDocument.Parse(reader.ReadLine() ?? throw new IOException("The process closed its control socket."));
        return answer.RootElement.Clone();
    }
}
