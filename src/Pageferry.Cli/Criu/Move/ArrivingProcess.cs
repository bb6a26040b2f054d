using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text.RegularExpressions;
using System.Threading.Channels;
using Microsoft.Extensions.Logging;
using Pageferry.Criu;
using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary>One move, at its destination: takes the images, restores from them, runs the processes when the source says so, and brings their memory.</summary>
/// <param name="settings">How to receive.</param>
/// <param name="display">Shows how far it is.</param>
/// <param name="arrived">Hears the first process's id when all its memory is there.</param>
internal sealed partial class ArrivingProcess(ReceiveSettings settings, MoveDisplay display, Action<int> arrived)
{
    private const int MostImages = 1 << 16;

    /// <summary>What is decided once: that the processes run here, or that this destination may end.</summary>
    private const int Starts = 1;
    private const int Ends = 2;

    /// <summary>How long a source that was lost may take to come back until processes that have not run are given up.</summary>
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    /// <summary>How long CRIU may take to restore processes without their memory; the source keeps them frozen meanwhile.</summary>
    private static readonly TimeSpan s_longestRestore = TimeSpan.FromSeconds(60);

    /// <summary>How long CRIU may take to give a restore up.</summary>
    private static readonly TimeSpan s_toEnd = TimeSpan.FromSeconds(2);

    /// <summary>How long the last word of a source that has everything behind it is waited for.</summary>
    private static readonly TimeSpan s_farewell = TimeSpan.FromSeconds(10);

    private readonly Channel<MoveConnection> _controls = Channel.CreateBounded<MoveConnection>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropOldest }, static dropped => dropped.Dispose());
    private readonly Channel<MoveConnection> _pages = Channel.CreateBounded<MoveConnection>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropOldest }, static dropped => dropped.Dispose());
    private volatile string _stage = MoveStage.Preparing;
    private int _decision;
    private int _pid;

    /// <summary>Whether it is known that the processes run: they may have ended when a source comes back and asks.</summary>
    private bool _isRunning;

    /// <summary>What the source calls the move.</summary>
    internal string Session { get; } = Convert.ToHexString(RandomNumberGenerator.GetBytes(16));

    /// <summary>Gives the move up, if the processes don't run here.</summary>
    /// <returns>Whether they don't, and never will.</returns>
    internal bool TryEnd() => Interlocked.CompareExchange(ref _decision, Ends, 0) != Starts;

    /// <summary>Whether the processes have not run here, and never will.</summary>
    internal bool IsGivenUp => _stage == MoveStage.GivenUp;

    /// <summary>Takes a connection of the source's, and welcomes it.</summary>
    /// <returns>Whether it still was there.</returns>
    internal async Task<bool> AttachAsync(MoveConnection connection, bool forPages)
    {
        try
        {
            await connection.SendAsync(MoveMessage.Welcome, new MoveWelcome(Session, _stage), CliJson.Default.MoveWelcome, CancellationToken.None);
        }
        catch (Exception failure) when (failure is IOException or SocketException)
        {
            connection.Dispose();
            return false;
        }

        if (!forPages)
        {
            connection.KeepAlive();
        }

        if (!(forPages ? _pages : _controls).Writer.TryWrite(connection))
        {
            // The move has ended meanwhile: who comes back is told so the next time.
            connection.Dispose();
            return false;
        }

        return true;
    }

    /// <summary>Takes the move, from its first control connection on.</summary>
    /// <param name="cancellation">Ends it, as long as nothing runs.</param>
    /// <returns>Whether the processes run here, with all their memory. What went wrong otherwise was shown.</returns>
    internal async Task<bool> RunAsync(CancellationToken cancellation)
    {
        MoveConnection control = await _controls.Reader.ReadAsync(cancellation);
        string directory = Directory.CreateTempSubdirectory("pageferry-receive-").FullName;
        try
        {
            return await RestoreAsync(control, directory, cancellation);
        }
        catch (Exception failure) when (failure is IOException or SocketException or CommandException or UnauthorizedAccessException or OperationCanceledException or TimeoutException)
        {
            string reason = failure is OperationCanceledException ? "the destination was ended" : failure.Message;
            if (_stage != MoveStage.Started)
            {
                // Before it is told: a source that has said Start already comes back to ask.
                _stage = MoveStage.GivenUp;
            }

            Show("failed", _stage == MoveStage.Started ? reason : $"A move failed, and what was to be moved goes on at the source: {reason}");
            await control.TryPartAsync(reason);
            return false;
        }
        finally
        {
            control.Dispose();
            _ = _pages.Writer.TryComplete();
            _ = _controls.Writer.TryComplete();
            while (_pages.Reader.TryRead(out MoveConnection? unused) || _controls.Reader.TryRead(out unused))
            {
                unused.Dispose();
            }

            Directory.Delete(directory, recursive: true);
        }
    }

    private async Task<bool> RestoreAsync(MoveConnection control, string directory, CancellationToken cancellation)
    {
        MoveOffer offer = await control.ReceiveAsync(MoveMessage.Offer, CliJson.Default.MoveOffer, cancellation);
        _pid = offer.Pid;
        CriuProgram criu = await CriuProgram.FindAsync(settings.Criu);
        Obstacle.Hold("The destination can't take it.", await ArrivalObstacles.FindAsync(criu, offer));
        string images = Directory.CreateDirectory(Path.Combine(directory, "images")).FullName;
        using RestoreHook hook = await RestoreHook.MakeAsync(directory);
        using var relay = new PageRelay(Path.Combine(directory, "pages.socket"), _pages.Reader);
        await control.SendAsync(MoveMessage.Ready, cancellation);
        Show("preparing", $"Process {offer.Pid} is about to come from {control.Peer}.");

        await ReceiveImagesAsync(control, images, cancellation);
        long imagesAt = Stopwatch.GetTimestamp();
        using var lazy = LazyRestore.Listen(images, directory, relay.EndPoint, settings.Background, new CriuLogger(Console.Error, LogLevel.Warning), settings.MaxBandwidth);
        var serving = Task.Factory.StartNew(lazy.Serve, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        string log = Path.Combine(directory, "restore.log");
        using Process restore = criu.Start(["restore", "-d", "-D", images, "-W", directory, "-v2", "-o", log, "--lazy-pages", "--action-script", hook.Path, .. offer.Traits.Options()]);
        Task ended = restore.WaitForExitAsync(CancellationToken.None);
        Task start = control.ReceiveAsync(MoveMessage.Start, cancellation);
        try
        {
            var late = Task.Delay(s_longestRestore, cancellation);
            Task first = await Task.WhenAny(hook.IsRestored, ended, start, late);
            cancellation.ThrowIfCancellationRequested();
            if (first == late)
            {
                throw new CommandException($"CRIU has not restored process {offer.Pid} at the destination within {s_longestRestore.TotalSeconds:F0} s. {CriuAdvice.ExplainLog(log)}");
            }

            if (first == start)
            {
                // A source that is lost now has not heard that anything stands ready, and has given up.
                await start;
                throw new MoveException("The source sent Start before anything stood ready.");
            }

            if (first != hook.IsRestored)
            {
                throw new CommandException($"CRIU could not restore process {offer.Pid} at the destination. {CriuAdvice.ExplainLog(log)}");
            }

            double restoreMs = Stopwatch.GetElapsedTime(imagesAt).TotalMilliseconds;
            _stage = MoveStage.Restored;
            using var processes = new RestoredProcesses(images);
            return await AwaitStartAsync(control, start, restoreMs, new Restored(restore, log, hook, lazy, serving, processes), cancellation);
        }
        catch (Exception)
        {
            if (_stage != MoveStage.Started)
            {
                hook.Answer(start: false);
                await EndRestoreAsync(restore, ended);
                await EndServingAsync(lazy, serving);
            }

            throw;
        }
    }

    /// <summary>Ends the restore, and the processes with it, which have not run. One that waits for a page, and gets none any more, does not hear that it is to end.</summary>
    private static async Task EndRestoreAsync(Process restore, Task ended)
    {
        try
        {
            await ended.WaitAsync(s_toEnd);
        }
        catch (TimeoutException)
        {
            restore.Kill(entireProcessTree: true);
            await ended.WaitAsync(s_patience);
        }
    }

    /// <summary>Ends the daemon, which no restore will come to any more, or whose restore has broken off.</summary>
    private static async Task EndServingAsync(LazyRestore lazy, Task serving)
    {
        try
        {
            lazy.EndWaiting();
            await serving.WaitAsync(s_farewell);
        }
        catch (Exception failure) when (failure is IOException or TimeoutException)
        {
            // It says that nothing came.
        }
    }

    /// <summary>The processes stand ready. Whatever happens to the connection, they run when the source has said so, and not otherwise.</summary>
    private async Task<bool> AwaitStartAsync(MoveConnection first, Task firstStart, double restoreMs, Restored restored, CancellationToken cancellation)
    {
        MoveConnection? control = first;
        bool isFirst = true;
        while (true)
        {
            try
            {
                if (control is null)
                {
                    using var deadline = CancellationTokenSource.CreateLinkedTokenSource(_stage == MoveStage.Started ? CancellationToken.None : cancellation);
                    deadline.CancelAfter(_stage == MoveStage.Started ? Timeout.InfiniteTimeSpan : s_patience);
                    control = await _controls.Reader.ReadAsync(deadline.Token);
                }

                if (isFirst)
                {
                    isFirst = false;
                    await control.SendAsync(MoveMessage.Restored, cancellation);
                }

                await (control == first ? firstStart : control.ReceiveAsync(MoveMessage.Start, _stage == MoveStage.Started ? CancellationToken.None : cancellation));
                if (_stage != MoveStage.Started && restored.Serving.Exception?.InnerException is { } failed)
                {
                    // Without their memory they are not to run.
                    throw new CommandException($"The memory of process {_pid} can't be brought to the destination: {failed.Message}");
                }

                if (Interlocked.CompareExchange(ref _decision, Starts, 0) == 0)
                {
                    _stage = MoveStage.Started;
                    restored.Hook.Answer(start: true);
                }
                else if (_stage != MoveStage.Started)
                {
                    throw new OperationCanceledException(cancellation);
                }

                if (await HasGivenUpAsync(restored))
                {
                    string reason = $"CRIU gave up after the processes were restored: {CriuAdvice.ExplainLog(restored.Log)}";
                    Show("failed", reason);
                    _stage = MoveStage.GivenUp;
                    await control.TryPartAsync(reason);
                    return false;
                }

                await control.SendAsync(MoveMessage.Running, new MoveArrived(restoreMs), CliJson.Default.MoveArrived, CancellationToken.None);
                if (control == first)
                {
                    Show("running", string.Create(CultureInfo.InvariantCulture, $"Process {_pid} runs here; restored in {restoreMs:F0} ms."));
                }

                await AwaitMemoryAsync(control, restored.Serving);
                return true;
            }
            catch (Exception failure) when (failure is (IOException or SocketException) && (_stage == MoveStage.Started || failure is not MoveException { IsParting: true }))
            {
                Show(_stage == MoveStage.Started ? "running" : "restoring", $"{failure.Message} The source is waited for.");
                control?.Dispose();
                control = null;
            }
            catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
            {
                throw new MoveException($"The source was lost before it said that process {_pid} may run, and has not come back within {s_patience.TotalSeconds:F0} s. The process has not run here.");
            }
        }
    }

    /// <summary>Waits until the processes, which were told to start, run.</summary>
    /// <returns>Whether CRIU has ended before any of them ran, and none is left: they never run here.</returns>
    /// <exception cref="CommandException">CRIU has ended, and nobody knows whether they ran.</exception>
    private async Task<bool> HasGivenUpAsync(Restored restored)
    {
        if (_isRunning)
        {
            return false;
        }

        // CRIU may end before what it said is read here.
        if (await Task.WhenAny(restored.Hook.IsRunning, restored.Criu.WaitForExitAsync(CancellationToken.None)) == restored.Hook.IsRunning || restored.Criu.ExitCode == 0)
        {
            _isRunning = true;
            return false;
        }

        // CRIU tells the daemon that it has finished, and only then lets the processes go to where it catches them once more. What it has told lies in the socket when it is gone.
        Task handover = Task.WhenAny(restored.Lazy.HandedOver, restored.Serving);
        _ = await Task.WhenAny(handover, Task.Delay(s_toEnd));
        await restored.Hook.ReadAllAsync();
        if (restored.Lazy.HandedOver.IsCompleted && restored.Hook.IsResuming && restored.Processes.IsFirstAlive)
        {
            Show("running", $"CRIU ended with exit status {restored.Criu.ExitCode} when it had let process {_pid} run, which goes on.");
            _isRunning = true;
            return false;
        }

        bool isGone = restored.Processes.TryEnd();
        _ = await Task.WhenAny(handover, Task.Delay(s_toEnd));
        return isGone && restored.Serving.IsCompleted && !restored.Lazy.HandedOver.IsCompleted && !restored.Hook.IsResuming ? true : throw new CommandException(
            $"CRIU ended with exit status {restored.Criu.ExitCode} just when process {_pid} was to run here: nobody knows whether it did. {(isGone ? "It is ended here" : "It can't be ended here")}, and stays frozen at the source. "
            + $"Where what it may have done does no harm, have it go on there: kill -9 the 'criu move' and the 'criu dump', then kill -CONT the process. {CriuAdvice.ExplainLog(restored.Log)}");
    }

    /// <summary>Waits until all memory is there, and says so.</summary>
    private async Task AwaitMemoryAsync(MoveConnection control, Task<LazySummary> serving)
    {
        // The connection is read meanwhile: that the source is gone shows, and it may come back by another one.
        Task released = control.ReceiveAsync(MoveMessage.Released, CancellationToken.None);
        if (await Task.WhenAny(serving, released) == released)
        {
            await released;
            throw new MoveException("The source let go before all memory was here.");
        }

        try
        {
            await serving;
        }
        catch (IOException failure)
        {
            throw new CommandException($"Process {_pid} lacks memory, and this destination can't bring it: {failure.Message}");
        }

        await control.SendAsync(MoveMessage.Complete, CancellationToken.None);
        try
        {
            await released.WaitAsync(s_farewell);
        }
        catch (Exception failure) when (failure is IOException or SocketException or TimeoutException)
        {
            // The processes lack nothing.
        }

        arrived(_pid);
        display.Show(new MoveStatus { Phase = "done", Text = $"Process {_pid} runs here and has all its memory.", Pid = _pid, Memory = LazyReport.Of(await serving) });
    }

    private async Task ReceiveImagesAsync(MoveConnection control, string images, CancellationToken cancellation)
    {
        for (int number = 0; ; number++)
        {
            (MoveMessage type, byte[] payload) = await control.ReceiveAsync(cancellation);
            if (type == MoveMessage.EndOfImages)
            {
                return;
            }

            MoveImage image = type == MoveMessage.Image ? control.Read(payload, CliJson.Default.MoveImage) : throw new MoveException($"The source sent {type} where an image is due.");
            if (number == MostImages || image.Length < 0 || !ImageName().IsMatch(image.Name))
            {
                throw new MoveException($"The source sent an image of {image.Length} bytes under a name that no image has, or too many of them.");
            }

            if (image.Length > new DriveInfo(images).AvailableFreeSpace)
            {
                throw new MoveException($"There is no room in {Path.GetTempPath()} at the destination for {image.Name}, {MemorySize.FormatMeasured((ulong)image.Length)}. Make room, or set TMPDIR.");
            }

            await using var file = new FileStream(Path.Combine(images, image.Name), FileMode.CreateNew, FileAccess.Write);
            for (long left = image.Length; left > 0;)
            {
                (type, payload) = await control.ReceiveAsync(cancellation);
                left -= type == MoveMessage.Data && payload.Length > 0 && payload.Length <= left ? payload.Length : throw new MoveException($"The source sent {type} of {payload.Length} bytes in the middle of {image.Name}.");
                await file.WriteAsync(payload, cancellation);
            }
        }
    }

    /// <summary>Names of CRIU's images: no directory, nothing hidden.</summary>
    [GeneratedRegex("^[A-Za-z0-9][A-Za-z0-9._-]{0,200}[.]img$", RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1000)]
    private static partial Regex ImageName();

    /// <summary>Processes that stand ready, and what made them so.</summary>
    private sealed record Restored(Process Criu, string Log, RestoreHook Hook, LazyRestore Lazy, Task<LazySummary> Serving, RestoredProcesses Processes);

    private void Show(string phase, string text) => display.Show(new MoveStatus { Phase = phase, Text = text, Pid = _pid == 0 ? null : _pid });
}
