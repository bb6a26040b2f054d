using System.Net;
using System.Net.Sockets;
using Pageferry.Memory;
using Pageferry.Migration;

namespace Pageferry.Fuzz;

/// <summary>A destination whose source says anything on its control connection, in any order, once the memory is armed. The first byte of an input says in which state.</summary>
internal static class ControlStream
{
    private const int RepairFlag = 1;

    /// <summary>Every page is known before.</summary>
    private const int WholeFlag = 2;

    private static readonly TimeSpan s_longest = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan s_linger = TimeSpan.FromMilliseconds(200);

    internal static void Receive(byte[] input)
    {
        if (input.Length == 0)
        {
            return;
        }

        byte[] stream = input[1..];
        if ((input[0] & RepairFlag) != 0)
        {
            PageFrames.Repair(stream);
        }

        using var guest = new ArrivedGuest();
        using var destination = new MigrationDestination(new IPEndPoint(IPAddress.Loopback, 0), _ => guest) { ReconnectFor = TimeSpan.Zero, WholePatience = TimeSpan.Zero };
        Exception? failure = null;
        var receiving = new Thread(() => failure = Take(destination)) { IsBackground = true, Name = "destination" };
        receiving.Start();
        Say(destination.EndPoint, stream, (input[0] & WholeFlag) != 0);
        destination.Dispose();
        FuzzTargets.Hold(receiving.Join(s_longest), "a destination whose source has gone comes to an end");
        FuzzTargets.Hold(failure is null or MigrationException or ObjectDisposedException, $"a destination tells what happened: {failure}");
        FuzzTargets.Hold(guest.Starts <= 1, "a guest is let run once");
        FuzzTargets.Hold(!guest.Engine.Failed.IsCompleted, "the engine goes on");
    }

    private static Exception? Take(MigrationDestination destination)
    {
        try
        {
            destination.Receive(_ => { });
            return null;
        }
        catch (Exception failure)
        {
            return failure;
        }
    }

    private static void Say(IPEndPoint destination, byte[] stream, bool isWhole)
    {
        using var link = new OutgoingConnections(new MigrationOptions { Connections = 1 }, new MigrationCounters());
        link.Open(destination);
        var layout = new MigrationLayout(Guid.NewGuid(), "fuzz", GuestBacking.Memfd, [new GuestRegion(0, FuzzTargets.Pages * Page.Size)], Validate: true);
        link.Send(MessageType.Layout, layout.Serialize());
        _ = link.Control.Receive(MessageType.Armed, 0);
        if (isWhole)
        {
            var zeros = new byte[ZeroRun.FrameBytes];
            new ZeroRun(0, FuzzTargets.Pages, 1).Write(zeros);
            link.Background[0].SendFrame(zeros);
            link.Background[0].Send(MessageType.Barrier, BitConverter.GetBytes(1));
            _ = link.Control.Receive(MessageType.RoundDone, sizeof(uint));
        }

        try
        {
            link.Control.SendFrame(stream);
            link.Control.Socket.Shutdown(SocketShutdown.Send);
            link.Control.Patience = s_linger;
            while (true)
            {
                (MessageType type, int bytes) = link.Control.ReceiveHeader();
                link.Control.ReceivePayload(type, new byte[bytes]);
            }
        }
        catch (Exception end) when (end is EndOfStreamException or SocketException or ProtocolException)
        {
            // It has gone, or says why it goes; or waits for pages that don't come.
        }
    }
}
