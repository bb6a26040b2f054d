using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace Pageferry.Cli;

/// <summary>What would make a restore fail on this host, as far as it can be known before the images come.</summary>
internal static class ArrivalObstacles
{
    private const int MostNamed = 3;

    /// <summary>Finds what is in the way of a move.</summary>
    /// <param name="criu">The CRIU here.</param>
    /// <param name="offer">What is to come. It is the source's word.</param>
    internal static async Task<IReadOnlyCollection<Obstacle>> FindAsync(CriuProgram criu, MoveOffer offer)
    {
        List<Obstacle> obstacles = [.. CapabilityObstacles.Of(offer.Traits.TcpEstablished), .. Ids(offer), .. Listening(offer), .. Files(offer)];
        if (!Version.TryParse(offer.Criu, out Version? version) || version > criu.Version)
        {
            obstacles.Add(new Obstacle($"The destination's CRIU {criu.Version} is older than the source's {offer.Criu}, whose images it may not know.", "Give 'criu receive' a newer one with --criu."));
        }

        if (await criu.CheckAsync() is { } trouble)
        {
            obstacles.Add(new Obstacle("'criu check' fails at the destination:", trouble));
        }
        else if (await criu.CheckAsync("uffd-noncoop") is not null)
        {
            obstacles.Add(new Obstacle("The destination's kernel or CRIU has no userfaultfd with events.", "It needs CONFIG_USERFAULTFD and, without CAP_SYS_PTRACE, sysctl vm.unprivileged_userfaultfd=1."));
        }

        return obstacles;
    }

    private static IEnumerable<Obstacle> Ids(MoveOffer offer)
    {
        int[] taken = [.. offer.Ids.Where(static id => Directory.Exists($"/proc/{id}")).Take(MostNamed)];
        if (taken.Length > 0)
        {
            yield return new Obstacle(
                $"At the destination {(taken.Length > 1 ? "the process ids" : "the process id")} {string.Join(", ", taken)} {(taken.Length > 1 ? "are" : "is")} taken.",
                "Receive in a pid namespace of its own: unshare -p -f -m --mount-proc pageferry criu receive ...");
        }

        if (int.TryParse(string.Concat(ProcFiles.Lines("/proc/sys/kernel/pid_max")), NumberStyles.None, CultureInfo.InvariantCulture, out int most) && offer.Ids.Any(id => id >= most))
        {
            yield return new Obstacle($"At the destination process ids end at {most}, and {offer.Ids.Max()} is needed.", $"sysctl -w kernel.pid_max={offer.Ids.Max() + 1} there, or more.");
        }
    }

    private static IEnumerable<Obstacle> Listening(MoveOffer offer)
    {
        foreach (string text in offer.Listening.Distinct(StringComparer.Ordinal))
        {
            if (!IPEndPoint.TryParse(text, out IPEndPoint? address))
            {
                continue;
            }

            SocketError error = TryBind(address);
            if (error == SocketError.AddressAlreadyInUse)
            {
                yield return new Obstacle($"At the destination {address} is taken, where the process listens.", "End who has it, or receive in a network namespace of its own: ip netns exec NAME pageferry criu receive ...");
            }
            else if (error == SocketError.AddressNotAvailable)
            {
                yield return new Obstacle($"The destination does not have the address {address.Address}, where the process listens.", "Add it there first: ip address add.");
            }
        }
    }

    private static SocketError TryBind(IPEndPoint address)
    {
        try
        {
            using var socket = new Socket(address.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
            socket.Bind(address);
            socket.Listen(1);
            return SocketError.Success;
        }
        catch (SocketException failure)
        {
            return failure.SocketErrorCode;
        }
    }

    private static IEnumerable<Obstacle> Files(MoveOffer offer)
    {
        string[] missing = [.. offer.Files.Where(static file => !File.Exists(file.Path)).Select(static file => file.Path).Take(MostNamed)];
        if (missing.Length > 0)
        {
            yield return new Obstacle($"The destination lacks files that the process has open or mapped: {string.Join(", ", missing)}.", "Put them at the same paths there.");
        }

        string[] others = [.. offer.Files.Where(static file => file.Length is not null && new FileInfo(file.Path) is { Exists: true, Length: var length } && length != file.Length).Select(static file => file.Path).Take(MostNamed)];
        if (others.Length > 0)
        {
            yield return new Obstacle($"At the destination files have other sizes than at the source: {string.Join(", ", others)}.", "The process needs the same programs, libraries and data on both sides.");
        }
    }
}
