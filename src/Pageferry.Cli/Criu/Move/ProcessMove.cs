using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Pageferry.Criu;
using Pageferry.Linux;
using Pageferry.Migration;

namespace Pageferry.Cli;

/// <summary>
/// Moves a process and its descendants to a <c>criu receive</c>. Until <see cref="MoveMessage.Start"/> is sent, whatever fails leaves them running here; from then on they never run here again, and stay
/// frozen until the destination has all their memory.
/// </summary>
internal sealed class ProcessMove : IDisposable
{
    private static readonly TimeSpan s_longestPause = TimeSpan.FromSeconds(1);

    private readonly MoveSettings _settings;
    private readonly MoveDisplay _display;
    private readonly MigrationSecurity? _security;
    private readonly string _images;
    private string? _session;

    /// <summary>Looked up once: behind the point of no return nothing but the destination itself may be missing.</summary>
    private IPEndPoint? _address;
    private FrozenPages? _pages;
    private volatile bool _isOver;

    private ProcessMove(MoveSettings settings, MoveDisplay display)
    {
        _settings = settings;
        _display = display;
        _security = settings.Security.Load();

        // Only this user reads what is in there.
        _images = Directory.CreateTempSubdirectory($"pageferry-move-{settings.Pid}-").FullName;
    }

    /// <summary>Moves a process.</summary>
    /// <param name="settings">Which, and where to.</param>
    /// <param name="display">Shows how far it is.</param>
    /// <param name="cancellation">Gives the move up, as long as that can be.</param>
    /// <returns>How it went.</returns>
    /// <exception cref="CommandException">It failed: the message says where the process is.</exception>
    internal static async Task<MoveStatus> RunAsync(MoveSettings settings, MoveDisplay display, CancellationToken cancellation)
    {
        using var move = new ProcessMove(settings, display);
        try
        {
            return await move.RunAsync(cancellation);
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            throw new CommandException($"The move was cancelled: process {settings.Pid} goes on here.", ExitCode.Interrupted);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _isOver = true;
        _pages?.Dispose();
        _security?.Dispose();
        Directory.Delete(_images, recursive: true);
    }

    private async Task<MoveStatus> RunAsync(CancellationToken cancellation)
    {
        CriuProgram criu = await CriuProgram.FindAsync(_settings.Criu);
        var survey = ProcessSurvey.Of(_settings.Pid);
        string subject = $"Process {_settings.Pid} can't be moved and goes on here.";
        CriuTraits traits = await WithNetworkLockAsync(criu, survey);
        List<Obstacle> obstacles = [.. survey.Obstacles(criu, traits)];
        if (await criu.CheckAsync() is { } trouble)
        {
            obstacles.Add(new Obstacle("'criu check' fails:", trouble));
        }

        Obstacle.Hold(subject, obstacles);
        (MoveConnection control, MoveConnection pages) = await ConnectAsync(survey.Offer(criu, traits), subject, cancellation);
        using (control)
        using (pages)
        {
            Show("checking", $"Nothing is in the way of process {_settings.Pid}{(survey.Pids.Count > 1 ? $" and {survey.Pids.Count - 1} more" : string.Empty)} at {_settings.To}.");
            return await MoveAsync(criu, survey, traits, control, pages, cancellation);
        }
    }

    private async Task<(MoveConnection Control, MoveConnection Pages)> ConnectAsync(MoveOffer offer, string subject, CancellationToken cancellation)
    {
        MoveConnection? control = null;
        try
        {
            (control, MoveWelcome welcome) = await ConnectAsync(forPages: false, cancellation);
            _session = welcome.Session;
            control.KeepAlive();
            await control.SendAsync(MoveMessage.Offer, offer, CliJson.Default.MoveOffer, cancellation);
            await control.ReceiveAsync(MoveMessage.Ready, cancellation);
            (MoveConnection pages, _) = await ConnectAsync(forPages: true, cancellation);
            return (control, pages);
        }
        catch (Exception failure) when (failure is IOException or SocketException)
        {
            control?.Dispose();
            throw new CommandException($"{subject} {Describe(failure)}");
        }
    }

    private Task<(MoveConnection Connection, MoveWelcome Welcome)> ConnectAsync(bool forPages, CancellationToken cancellation) =>
        MoveConnection.ConnectAsync(
            _settings.To,
            _address ??= _settings.To.ToLocal(onlyLoopback: _security is null && !_settings.Security.InsecureNetwork),
            _security,
            new MoveHello(MoveConnection.Version, _session, forPages),
            cancellation);

    private string Describe(Exception failure) => failure is SocketException socket
        ? $"Could not connect to {_settings.To}: {CriuService.Reason(socket)}. Start 'pageferry criu receive' there."
        : failure.Message;

    /// <summary>How connections are locked: as the user said, or as this host can.</summary>
    private async Task<CriuTraits> WithNetworkLockAsync(CriuProgram criu, ProcessSurvey survey)
    {
        if (!_settings.Traits.TcpEstablished || _settings.Traits.NetworkLock is not null || survey.Sockets.All(static socket => socket.IsListening))
        {
            return _settings.Traits;
        }

        bool hasIptables = (Environment.GetEnvironmentVariable("PATH") ?? string.Empty).Split(':').Append("/usr/sbin").Append("/sbin").Any(static folder => File.Exists(Path.Combine(folder, "iptables")));
        string method = hasIptables ? "iptables"
            : await criu.CheckAsync("network_lock_nftables") is null ? "nftables"
            : throw new CommandException(
                $"Process {_settings.Pid} can't be moved and goes on here. Its TCP connections have to be locked meanwhile, and there is neither iptables nor a CRIU with nftables. "
                + "Install iptables; or give --network-lock skip where nothing answers for it meanwhile.");
        return _settings.Traits with { NetworkLock = method };
    }

    private async Task<MoveStatus> MoveAsync(CriuProgram criu, ProcessSurvey survey, CriuTraits traits, MoveConnection control, MoveConnection pages, CancellationToken cancellation)
    {
        LazyDump dump;
        try
        {
            dump = await LazyDump.StartAsync(criu, survey, _images, traits, cancellation);
        }
        catch (CommandException failure)
        {
            await control.TryPartAsync(failure.Message);
            throw;
        }

        using (dump)
        {
            bool isHeld = false;
            MoveStatus status;
            try
            {
                double dumpMs = Stopwatch.GetElapsedTime(dump.FrozenAt).TotalMilliseconds;
                _pages = FrozenPages.Open(_images, survey.PidsByImage());
                Serve(pages);
                long sendingAt = Stopwatch.GetTimestamp();
                long bytes = await SendImagesAsync(control, cancellation);
                status = new MoveStatus
                {
                    Phase = "restoring",
                    Text = string.Create(
                        CultureInfo.InvariantCulture, $"Frozen and dumped in {dumpMs:F0} ms; sent {MemorySize.FormatMeasured((ulong)bytes)} of images. {_pages.LazyPages:N0} pages follow it."),
                    Pid = _settings.Pid,
                    ImagesBytes = bytes,
                    PagesTotal = _pages.LazyPages,
                    DumpMs = dumpMs,
                    ImagesMs = Stopwatch.GetElapsedTime(sendingAt).TotalMilliseconds,
                };
                _display.Show(status);
                await dump.WhileFrozenAsync(control.ReceiveAsync(MoveMessage.Restored, cancellation));
                cancellation.ThrowIfCancellationRequested();
                isHeld = true;
                dump.Hold();
            }
            catch (Exception failure)
            {
                await dump.GiveUpAsync(isHeld);
                await control.TryPartAsync($"The source gave the move up: {(failure is OperationCanceledException ? "it was cancelled." : Describe(failure))}");
                throw failure is OperationCanceledException ? failure : new CommandException($"Process {_settings.Pid} could not be moved and goes on here. {Describe(failure)}");
            }

            return await CompleteAsync(dump, control, status, cancellation);
        }
    }

    /// <summary>Behind the point of no return: whatever happens, the process is the destination's, unless that says that it never ran there.</summary>
    private async Task<MoveStatus> CompleteAsync(LazyDump dump, MoveConnection first, MoveStatus status, CancellationToken cancellation)
    {
        using CancellationTokenRegistration told = cancellation.Register(() => Console.Error.WriteLine($"pageferry: Process {status.Pid} runs at {_settings.To} already: the move goes on until it has its memory."));
        MoveConnection control = first;
        string stage = MoveStage.Restored;
        using var showing = new Timer(_ => ShowPages(status));
        while (true)
        {
            try
            {
                if (stage == MoveStage.GivenUp)
                {
                    await dump.GiveUpAsync(isHeld: true);
                    throw new CommandException($"Process {_settings.Pid} never ran at {_settings.To}, which gave it up, and goes on here.");
                }

                await control.SendAsync(MoveMessage.Start, CancellationToken.None);
                MoveArrived arrived = await control.ReceiveAsync(MoveMessage.Running, CliJson.Default.MoveArrived, CancellationToken.None);
                if (status.DowntimeMs is null)
                {
                    double downtime = Stopwatch.GetElapsedTime(dump.FrozenAt).TotalMilliseconds;
                    status = status with { Phase = "running", DowntimeMs = downtime, RestoreMs = arrived.RestoreMs, Text = string.Create(CultureInfo.InvariantCulture, $"Runs at {_settings.To} after {downtime:F1} ms.") };
                    _display.Show(status);
                    _ = showing.Change(s_longestPause, s_longestPause);
                }

                await control.ReceiveAsync(MoveMessage.Complete, CancellationToken.None);
                _isOver = true;
                await dump.FinishAsync();
                await TryReleaseAsync(control);
                double total = Stopwatch.GetElapsedTime(dump.FrozenAt).TotalMilliseconds;
                return status with
                {
                    Phase = "done",
                    PagesSent = _pages!.PagesServed,
                    TotalMs = total,
                    Text = string.Create(
                        CultureInfo.InvariantCulture,
                        $"Process {_settings.Pid} runs at {_settings.To} and has all its memory: downtime {status.DowntimeMs:F1} ms (dump {status.DumpMs:F0}, images {status.ImagesMs:F0}, restore {status.RestoreMs:F0}), total {total:N0} ms, {_pages.PagesServed:N0} pages."),
                };
            }
            catch (Exception failure) when (failure is (IOException or SocketException) and not LinuxException)
            {
                await Console.Error.WriteLineAsync($"pageferry: {Describe(failure)} Process {_settings.Pid} is the destination's; it is looked for.");
                control.Dispose();
                (control, stage) = await ReconnectAsync();
            }
        }
    }

    /// <summary>Looks for the destination until it is found.</summary>
    private async Task<(MoveConnection Control, string Stage)> ReconnectAsync()
    {
        string? told = null;
        for (TimeSpan pause = TimeSpan.FromMilliseconds(50); ; pause = pause * 2 < s_longestPause ? pause * 2 : s_longestPause)
        {
            try
            {
                (MoveConnection control, MoveWelcome welcome) = await ConnectAsync(forPages: false, CancellationToken.None);
                control.KeepAlive();
                return (control, welcome.Stage);
            }
            catch (Exception failure) when (failure is IOException or SocketException)
            {
                if (failure.Message != told)
                {
                    told = failure.Message;
                    await Console.Error.WriteLineAsync($"pageferry: {Describe(failure)}");
                }

                await Task.Delay(pause);
            }
        }
    }

    /// <summary>The destination has everything: that it does not hear so is no failure.</summary>
    private static async Task TryReleaseAsync(MoveConnection control)
    {
        try
        {
            await control.SendAsync(MoveMessage.Released, CancellationToken.None);
        }
        catch (Exception failure) when (failure is IOException or SocketException)
        {
            // It waits a moment, and is done.
        }
    }

    /// <summary>Answers the destination's requests for pages, on connection after connection, by a thread of its own.</summary>
    private void Serve(MoveConnection first)
    {
        var serving = new Thread(() =>
        {
            MoveConnection? connection = first;
            string? told = null;
            while (!_isOver)
            {
                try
                {
                    connection ??= ConnectAsync(forPages: true, CancellationToken.None).GetAwaiter().GetResult().Connection;
                    if (_pages!.Serve(connection.Stream))
                    {
                        return;
                    }
                }
                catch (Exception failure) when (failure is IOException or SocketException or ObjectDisposedException)
                {
                    if (!_isOver && failure is PageServerException && failure.Message != told)
                    {
                        told = failure.Message;
                        Console.Error.WriteLine($"pageferry: {failure.Message}");
                    }
                }

                connection?.Dispose();
                connection = null;
                if (!_isOver)
                {
                    Thread.Sleep(TimeSpan.FromMilliseconds(100));
                }
            }
        })
        { IsBackground = true, Name = "pages" };
        serving.Start();
    }

    private async Task<long> SendImagesAsync(MoveConnection control, CancellationToken cancellation)
    {
        long bytes = 0;
        var buffer = new byte[MoveConnection.MostBytes];
        foreach (FileInfo image in new DirectoryInfo(_images).EnumerateFiles("*.img"))
        {
            await control.SendAsync(MoveMessage.Image, new MoveImage(image.Name, image.Length), CliJson.Default.MoveImage, cancellation);
            await using FileStream content = image.OpenRead();
            for (long left = image.Length; left > 0;)
            {
                int read = await content.ReadAtLeastAsync(buffer.AsMemory(0, (int)Math.Min(left, buffer.Length)), 1, cancellationToken: cancellation);
                await control.SendAsync(MoveMessage.Data, buffer.AsMemory(0, read), cancellation);
                left -= read;
            }

            bytes += image.Length;
        }

        await control.SendAsync(MoveMessage.EndOfImages, cancellation);
        return bytes;
    }

    private void ShowPages(MoveStatus status)
    {
        if (!_isOver && _pages is { } pages)
        {
            _display.Show(status with { PagesSent = pages.PagesServed, Text = string.Create(CultureInfo.InvariantCulture, $"{pages.PagesServed:N0} of {pages.LazyPages:N0} pages sent.") });
        }
    }

    private void Show(string phase, string text) => _display.Show(new MoveStatus { Phase = phase, Text = text, Pid = _settings.Pid });
}
