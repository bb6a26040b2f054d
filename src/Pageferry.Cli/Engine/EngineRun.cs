using System.Net.Sockets;
using System.Text.Json;
using Pageferry.Linux;
using Pageferry.Migration;

namespace Pageferry.Cli;

/// <summary>An engine's process: takes a guest in for another process, and ends with it.</summary>
internal sealed class EngineRun
{
    private static readonly TimeSpan s_glance = TimeSpan.FromMilliseconds(50);

    private readonly EngineChannel _calls;
    private readonly object _gate = new();
    private bool _isResumed;
    private Arrival? _arrival;
    private volatile RemoteGuest? _guest;

    private EngineRun(EngineChannel calls) => _calls = calls;

    /// <summary>Runs for the process that started this one.</summary>
    /// <param name="socket">The number of the socket that this process was started with.</param>
    /// <returns>The exit status.</returns>
    internal static int RunStarted(int socket)
    {
        // A terminal's Ctrl-C reaches this process too, and is meant for the guest's: when that ends, this one does.
        using var end = new EndRequest(static () => false);
        return Run(UnixSocket.FromDescriptor(new FileDescriptor(socket)));
    }

    /// <summary>Runs for a process that listens for engines, as soon as one does.</summary>
    /// <param name="path">Where.</param>
    /// <returns>The exit status.</returns>
    /// <exception cref="CommandException">That can't be connected to, or is gone.</exception>
    internal static int RunSupervised(string path)
    {
        var manager = ServiceManager.FromEnvironment();
        var output = new VmOutput(json: false);
        output.Write("waiting", $"Waits for a guest's process at {path}");
        manager?.Tell($"READY=1\nSTATUS=Waits for a guest's process at {path}");
        UnixSocket socket = Connect(path);
        int pid = socket.GetPeer().ProcessId;
        output.Write("connected", $"Connected to the guest's process {pid}: works for it, or stands by until the engine that does is gone");
        manager?.Tell($"STATUS=Works for process {pid}, or stands by");
        return Run(socket) == ExitCode.Done
            ? ExitCode.Done
            : throw new CommandException($"The guest's process {pid} at {path} is gone, or did not take this engine: then it says why.");
    }

    private static UnixSocket Connect(string path)
    {
        while (true)
        {
            try
            {
                return UnixSocket.Connect(path, UnixSocketType.SequencedPackets);
            }
            catch (LinuxException e) when (e.Errno == Errno.ENOENT || (e.Errno == Errno.ECONNREFUSED && ControlServer.IsSocket(path)))
            {
                Thread.Sleep(s_glance);
            }
            catch (LinuxException e)
            {
                throw new CommandException($"Could not reach a guest's process: {e.Message} --guest is what its 'vm receive' has as --engine-socket.");
            }
        }
    }

    private static int Run(UnixSocket socket)
    {
        using var calls = new EngineChannel(socket);
        try
        {
            return new EngineRun(calls).Run();
        }
        catch (EndOfStreamException)
        {
            // The guest's process is gone, and its guest with it.
        }
        catch (Exception e) when (e is not OutOfMemoryException)
        {
            _ = calls.Ask(new EngineMessage { What = EngineMessage.Refused, Text = e.Message });
        }

        return ExitCode.Failure;
    }

    private int Run()
    {
        var hello = new EngineMessage { What = EngineMessage.Hello, Version = EngineMessage.CurrentVersion, Build = BuildVersion.Text };
        EngineMessage answer = _calls.Ask(hello, Timeout.InfiniteTimeSpan, out FileDescriptor[] received);
        if (answer.Settings is not { } settings || received.Length < 2)
        {
            throw new InvalidDataException($"The guest's process answered '{hello.What}' with {received.Length} descriptors and {(answer.Settings is null ? "no" : "its")} settings.");
        }

        var orders = new EngineChannel(UnixSocket.FromDescriptor(received[0]));
        var listening = new Socket(new SafeSocketHandle(received[1].Number, ownsHandle: true));
        received[1].SetHandleAsInvalid();
        new Thread(() => ObeyUntilAlone(orders)) { IsBackground = true, Name = "orders" }.Start();

        var logger = new CallLogger(_calls);
        using MigrationSecurity? security = settings.Security.Load();
        RemoteGuest? held = answer.View is null ? null : RemoteGuest.TakeOver(_calls, answer, received, Adopt, logger);
        var options = new ArrivalOptions(
            Backing: null,
            Memory.FaultDelivery.Queue,
            Vmm.DirtyTracking.Auto,
            security,
            settings.Security.InsecureNetwork,
            settings.ReconnectForMs is { } longest ? TimeSpan.FromMilliseconds(longest) : Timeout.InfiniteTimeSpan,
            TimeSpan.FromMilliseconds(settings.LinkTimeoutMs),
            TimeSpan.FromMilliseconds(settings.StallWarningMs),
            Report: null);
        using var arrival = Arrival.Over(listening, layout => RemoteGuest.Prepare(_calls, layout, Adopt, logger), held, options, settings.IsReported, logger);
        _arrival = arrival;
        _ = _calls.Ask(new EngineMessage { What = EngineMessage.Ready });
        while (!TryReceive(arrival))
        {
            AwaitResume();
        }

        return ExitCode.Done;
    }

    /// <returns>Whether the arrival is over.</returns>
    private bool TryReceive(Arrival arrival)
    {
        try
        {
            arrival.ReceiveAsync(
                static _ => { }, reason => Tell(arrival, new EngineMessage { What = EngineMessage.TurnedAway, Text = reason }), static () => { }).GetAwaiter().GetResult();
            Tell(arrival, new EngineMessage { What = EngineMessage.Arrived, Status = arrival.Status });
            return true;
        }
        catch (MigrationException e)
        {
            Tell(arrival, new EngineMessage { What = EngineMessage.Failed, Text = e.Message, Status = arrival.Status });
            return false;
        }
    }

    /// <summary>Says how it came out, with what there is to report.</summary>
    private void Tell(Arrival arrival, EngineMessage message)
    {
        if (arrival.Recorded is not { } recorded)
        {
            _ = _calls.Ask(message);
            return;
        }

        byte[] bytes = JsonSerializer.SerializeToUtf8Bytes(recorded, CliJson.Default.RecordedMigration);
        using MemoryFile file = BytesFile.Write("report", bytes);
        _ = _calls.Ask(message with { Count = (ulong)bytes.Length }, file.Descriptor);
    }

    private void AwaitResume()
    {
        lock (_gate)
        {
            while (!_isResumed)
            {
                _ = Monitor.Wait(_gate);
            }

            _isResumed = false;
        }
    }

    private void Adopt(RemoteGuest guest) => _guest = guest;

    private void ObeyUntilAlone(EngineChannel orders)
    {
        try
        {
            orders.Serve(Obey);
        }
        catch (IOException)
        {
            // As good as gone.
        }

        // Nobody else could answer the guest, which is gone with its process: what waits for pages here is not waited for.
        Environment.Exit(ExitCode.Failure);
    }

    private EngineAnswer Obey(EngineMessage order, FileDescriptor[] received)
    {
        Array.ForEach(received, descriptor => descriptor.Dispose());
        switch (order.What)
        {
            case EngineMessage.Ask:
                return new EngineAnswer(new EngineMessage { What = order.What, Status = _arrival?.Status });
            case EngineMessage.Executed:
                _guest?.TellExecuted();
                return EngineAnswer.Done;
            case EngineMessage.Resume:
                lock (_gate)
                {
                    _isResumed = true;
                    Monitor.PulseAll(_gate);
                }

                return EngineAnswer.Done;
            case EngineMessage.Export:
                _ = (_arrival ?? throw new InvalidOperationException("The engine takes over just now.")).Export();
                return EngineAnswer.Done;
            default:
                throw new InvalidDataException($"'{order.What}' is no order that this build knows.");
        }
    }
}
