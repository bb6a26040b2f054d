using System.Buffers.Binary;
using System.Text.Json;

namespace Pageferry.Cli.Tests;

public sealed class VmRunTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    private string Control => _directory.Path("control.sock");

    public void Dispose() => _directory.Dispose();

    public static TheoryData<string, string> GuestsAndHosts => new MatrixTheoryData<string, string>(["stamp", "random"], ["kvm", "threads"]);

    [Theory]
    [MemberData(nameof(GuestsAndHosts))]
    public async Task A_guest_with_a_number_of_passes_ends_with_0(string guest, string host)
    {
        KvmDevice.SkipIfMissing(host);
        using PageferryProcess run = await RunAsync(guest, "--host", host, "--passes", "3", "--vcpus", "2");
        Assert.Equal(0, run.ExitCode);
        Assert.Contains($"Guest '{guest}' runs on {host} with 16 MiB of memory and 2 vCPU", run.Output, StringComparison.Ordinal);
        Assert.Contains("The guest ended with code 0", run.Output, StringComparison.Ordinal);
        Assert.Empty(run.Errors);
        Assert.False(Path.Exists(Control));
    }

    [Fact]
    public async Task Json_is_an_object_per_line_with_the_state()
    {
        using PageferryProcess run = await RunAsync("stamp", "--host", "threads", "--passes", "2", "--json");
        JsonElement[] lines = [.. run.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(line => JsonDocument.Parse(line).RootElement)];
        Assert.Equal("started", lines[0].GetProperty("event").GetString());
        Assert.Equal("running", lines[0].GetProperty("status").GetProperty("state").GetString());
        Assert.Equal("ended", lines[^1].GetProperty("event").GetString());
        Assert.Equal(2UL, lines[^1].GetProperty("status").GetProperty("passes").GetUInt64());
        Assert.Equal(0, lines[^1].GetProperty("status").GetProperty("exit_code").GetInt32());
    }

    [Fact]
    public async Task Status_shows_a_running_guest_and_stop_ends_it()
    {
        using PageferryProcess run = await StartAsync("--host", "threads");
        using (PageferryProcess asked = await PageferryProcess.RunAsync("vm", "status", "--control", Control, "--json"))
        {
            Assert.Equal(0, asked.ExitCode);
            JsonElement status = JsonDocument.Parse(asked.Output).RootElement;
            Assert.Equal("running", status.GetProperty("state").GetString());
            Assert.Equal(run.Pid, status.GetProperty("pid").GetInt32());
            Assert.Equal("threads", status.GetProperty("host").GetString());
            Assert.Equal(16UL << 20, status.GetProperty("memory_bytes").GetUInt64());
            Assert.False(status.TryGetProperty("exit_code", out _));
        }

        using (PageferryProcess text = await PageferryProcess.RunAsync("vm", "status", "--control", Control))
        {
            Assert.Contains("running", text.Output, StringComparison.Ordinal);
        }

        using PageferryProcess stop = await PageferryProcess.RunAsync("vm", "stop", "--control", Control);
        Assert.Equal(0, stop.ExitCode);
        await run.WaitForExitAsync();
        Assert.Equal(0, run.ExitCode);
        Assert.False(Path.Exists(Control));
    }

    [Theory]
    [InlineData("auto", "log")]
    [InlineData("log", "log")]
    [InlineData("ring", "ring")]
    public async Task It_says_what_tracks_the_guests_writes_and_a_move_that_asks_for_something_else_is_refused(string asked, string tracking)
    {
        KvmDevice.SkipIfMissing();
        using PageferryProcess run = await StartAsync("--host", "kvm", "--dirty-tracking", asked);
        Assert.Contains($"writes tracked by {tracking}", run.Output, StringComparison.Ordinal);
        using (PageferryProcess status = await PageferryProcess.RunAsync("vm", "status", "--control", Control, "--json"))
        {
            Assert.Equal(tracking, JsonDocument.Parse(status.Output).RootElement.GetProperty("dirty_tracking").GetString());
        }

        string other = tracking == "log" ? "ring" : "log";
        using PageferryProcess migrate = await PageferryProcess.RunAsync("vm", "migrate", "--control", Control, "--to", "127.0.0.1:9", "--dirty-tracking", other);
        Assert.Equal(1, migrate.ExitCode);
        Assert.Contains($"its writes are tracked by {tracking}, which is chosen when it is made", migrate.Errors, StringComparison.Ordinal);
        Assert.False(run.HasExited);
    }

    [Theory]
    [InlineData(1, "by page tables (scan), not by Ring", "--host", "threads", "--dirty-tracking", "ring")]
    [InlineData(2, "Choose one of: auto, log, ring", "--dirty-tracking", "scan")]
    [InlineData(1, "a guest that is to run as a kernel (CPL 0) needs KVM", "--host", "threads", "--privilege", "kernel")]
    public async Task What_a_guest_cannot_be_made_with_is_refused(int exitCode, string reason, params string[] options)
    {
        using PageferryProcess run = await RunAsync("stamp", options);
        Assert.Equal(exitCode, run.ExitCode);
        Assert.Contains(reason, run.Errors, StringComparison.Ordinal);
        Assert.False(Path.Exists(Control));
    }

    [Fact]
    public async Task A_request_with_a_value_out_of_range_is_answered_and_the_guest_can_still_move()
    {
        using PageferryProcess run = await StartAsync("--host", "threads");
        using var client = ControlClient.Connect(Control);
        var request = new ControlRequest { Command = ControlRequest.Migrate, To = "127.0.0.1:9", Migration = new MigrationSettings { Connections = 99 } };
        CommandException refused = await Assert.ThrowsAsync<CommandException>(() => client.LastStatusAsync(request, default));
        Assert.Contains("1 to 16 background connections, not 99", refused.Message, StringComparison.Ordinal);
        Assert.Equal(VmState.Running, (await client.StatusAsync(default)).State);
    }

    [Theory]
    [InlineData("stop", 0)]
    [InlineData("INT", 0)]
    [InlineData("KILL", 1)]
    public async Task A_guest_is_watched_until_its_process_ends(string how, int code)
    {
        using PageferryProcess run = await StartAsync("--host", "threads");
        using PageferryProcess watch = PageferryProcess.Start("vm", "status", "--watch", "--control", Control);
        await watch.WaitUntilAsync(() => watch.Output.Contains("running", StringComparison.Ordinal), "its first line");
        if (how == "stop")
        {
            using PageferryProcess stop = await PageferryProcess.RunAsync("vm", "stop", "--control", Control);
            Assert.Equal(0, stop.ExitCode);
        }
        else
        {
            run.Signal(how);
        }

        await watch.WaitForExitAsync();
        Assert.Equal(code, watch.ExitCode);
        Assert.Contains($"Process {run.Pid} ended", code == 0 ? watch.Output : watch.Errors, StringComparison.Ordinal);
        await run.WaitForExitAsync();
    }

    [Fact]
    public async Task Ctrl_c_ends_the_guest_and_removes_its_socket()
    {
        using PageferryProcess run = await StartAsync("--host", "threads");
        run.Signal("INT");
        await run.WaitForExitAsync();
        Assert.Equal(130, run.ExitCode);
        Assert.False(Path.Exists(Control));
    }

    [Fact]
    public async Task A_control_path_in_use_is_refused_and_the_first_guest_runs_on()
    {
        using PageferryProcess first = await StartAsync("--host", "threads");
        using PageferryProcess second = await RunAsync("stamp", "--host", "threads");
        Assert.Equal(1, second.ExitCode);
        Assert.Contains($"Could not make the control socket {Control}: a running guest listens there", second.Errors, StringComparison.Ordinal);
        using PageferryProcess asked = await PageferryProcess.RunAsync("vm", "status", "--control", Control);
        Assert.Contains($"pid {first.Pid}", asked.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_guest_file_that_is_not_there_is_named()
    {
        using PageferryProcess run = await RunAsync(_directory.Path("missing.elf"));
        Assert.Equal(1, run.ExitCode);
        Assert.Contains(_directory.Path("missing.elf"), run.Errors, StringComparison.Ordinal);
        Assert.False(Path.Exists(Control));
    }

    [NeedsKvm]
    [Fact]
    public async Task An_elf_of_another_architecture_is_refused()
    {
        const ushort Aarch64 = 183;
        File.WriteAllBytes(_directory.Path("arm.elf"), Elf(Aarch64, memoryBytes: 4096));
        using PageferryProcess run = await RunAsync(_directory.Path("arm.elf"));
        Assert.Equal(1, run.ExitCode);
        Assert.Contains("arm.elf", run.Errors, StringComparison.Ordinal);
        Assert.Contains("x86-64", run.Errors, StringComparison.Ordinal);
    }

    [NeedsKvm]
    [Fact]
    public async Task An_elf_larger_than_the_memory_is_refused()
    {
        const ushort X86_64 = 62;
        File.WriteAllBytes(_directory.Path("large.elf"), Elf(X86_64, memoryBytes: 1UL << 30));
        using PageferryProcess run = await RunAsync(_directory.Path("large.elf"));
        Assert.Equal(1, run.ExitCode);
        Assert.Contains("large.elf", run.Errors, StringComparison.Ordinal);
        Assert.Contains("memory", run.Errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Memory_beyond_what_a_guest_can_have_is_refused_with_the_limit()
    {
        using PageferryProcess run = await PageferryProcess.RunAsync("vm", "run", "stamp", "--memory", "1000T", "--host", "threads", "--control", Control);
        Assert.Equal(1, run.ExitCode);
        Assert.Contains("128 GiB", run.Errors, StringComparison.Ordinal);
        Assert.Contains("1099511627776000", run.Errors, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("kvm")]
    [InlineData("threads")]
    public async Task More_virtual_cpus_than_can_be_are_refused_with_the_limit(string host)
    {
        KvmDevice.SkipIfMissing(host);
        using PageferryProcess run = await RunAsync("stamp", "--host", host, "--vcpus", "100000");
        Assert.Equal(1, run.ExitCode);
        Assert.Contains("100000", run.Errors, StringComparison.Ordinal);
        Assert.Contains("64 vCPUs", run.Errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Threads_run_the_built_in_guests_only()
    {
        File.WriteAllBytes(_directory.Path("flat.bin"), [0xf4]);
        using PageferryProcess run = await RunAsync(_directory.Path("flat.bin"), "--host", "threads");
        Assert.Equal(1, run.ExitCode);
        Assert.Contains("built-in", run.Errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_held_process_ends_and_cleans_up_when_its_input_closes()
    {
        using PageferryProcess run = await StartAsync("--host", "threads", "--end-with-input");
        run.CloseInput();
        await run.WaitForExitAsync();
        Assert.False(Path.Exists(Control));
    }

    /// <summary>A static ELF64 executable of one segment at 1 MiB.</summary>
    private static byte[] Elf(ushort machine, ulong memoryBytes)
    {
        var file = new byte[64 + 56 + 16];
        ((ReadOnlySpan<byte>)[0x7f, (byte)'E', (byte)'L', (byte)'F', 2, 1, 1]).CopyTo(file);
        BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(16), 2);         // e_type: ET_EXEC
        BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(18), machine);   // e_machine
        BinaryPrimitives.WriteUInt32LittleEndian(file.AsSpan(20), 1);         // e_version
        BinaryPrimitives.WriteUInt64LittleEndian(file.AsSpan(24), 0x100000);  // e_entry
        BinaryPrimitives.WriteUInt64LittleEndian(file.AsSpan(32), 64);        // e_phoff
        BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(52), 64);        // e_ehsize
        BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(54), 56);        // e_phentsize
        BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(56), 1);         // e_phnum
        Span<byte> segment = file.AsSpan(64);
        BinaryPrimitives.WriteUInt32LittleEndian(segment, 1);                 // p_type: PT_LOAD
        BinaryPrimitives.WriteUInt32LittleEndian(segment[4..], 5);            // p_flags: R X
        BinaryPrimitives.WriteUInt64LittleEndian(segment[8..], 120);          // p_offset
        BinaryPrimitives.WriteUInt64LittleEndian(segment[16..], 0x100000);    // p_vaddr
        BinaryPrimitives.WriteUInt64LittleEndian(segment[24..], 0x100000);    // p_paddr
        BinaryPrimitives.WriteUInt64LittleEndian(segment[32..], 16);          // p_filesz
        BinaryPrimitives.WriteUInt64LittleEndian(segment[40..], memoryBytes); // p_memsz
        return file;
    }

    private Task<PageferryProcess> RunAsync(string guest, params string[] options) =>
        PageferryProcess.RunAsync(["vm", "run", guest, "--memory", "16M", "--control", Control, .. options]);

    private async Task<PageferryProcess> StartAsync(params string[] options)
    {
        var run = PageferryProcess.Start(["vm", "run", "stamp", "--memory", "16M", "--control", Control, .. options]);
        await run.WaitUntilAsync(() => run.Output.Contains("runs on", StringComparison.Ordinal) || run.HasExited, "the guest's start");
        return run;
    }
}
