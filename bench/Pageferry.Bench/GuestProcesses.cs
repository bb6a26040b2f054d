using System.Diagnostics;
using System.Net.Sockets;
using System.Text;
using System.Text.Json.Nodes;

namespace Pageferry.Bench;

/// <summary>Guests' processes as a user runs them, seen by their control sockets.</summary>
internal static class GuestProcesses
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    /// <summary>Measures in each round, with a source and a destination whose control sockets have paths of their own.</summary>
    public static List<T> Measure<T>(int rounds, Func<string, string, T> measureOne)
    {
        var measured = new List<T>();
        for (int round = 0; round < rounds; round++)
        {
            DirectoryInfo directory = Directory.CreateTempSubdirectory("pageferry-bench-");
            try
            {
                measured.Add(measureOne(Path.Combine(directory.FullName, "a"), Path.Combine(directory.FullName, "b")));
                Console.Error.Write('.');
            }
            finally
            {
                directory.Delete(recursive: true);
            }
        }

        Console.Error.WriteLine();
        return measured;
    }

    /// <summary>How many pages have arrived.</summary>
    public static ulong Done(JsonNode status) => status["migration"]?["pages_done"]?.GetValue<ulong>() ?? 0;

    /// <summary>How many pages the guest has.</summary>
    public static ulong Total(JsonNode status) => status["migration"]!["pages_total"]!.GetValue<ulong>();

    /// <summary>Starts a command whose output nobody reads.</summary>
    public static Process Start(string pageferry, params string[] arguments)
    {
        var process = Process.Start(new ProcessStartInfo(pageferry, arguments) { UseShellExecute = false, RedirectStandardOutput = true, RedirectStandardError = true })!;
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
        return process;
    }

    /// <summary>Waits until the status of a guest's process is such.</summary>
    public static JsonNode Await(string control, Func<JsonNode, bool> holds)
    {
        long began = Stopwatch.GetTimestamp();
        while (Stopwatch.GetElapsedTime(began) < s_patience)
        {
            if (TryAsk(control) is { } status && holds(status))
            {
                return status;
            }

            Thread.Sleep(1);
        }

        throw new TimeoutException($"Waited {s_patience.TotalSeconds} s: {TryAsk(control)}");
    }

    private static JsonNode? TryAsk(string control)
    {
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            socket.Connect(new UnixDomainSocketEndPoint(control));
        }
        catch (SocketException)
        {
            // It is not there yet.
            return null;
        }

        _ = socket.Send("{\"command\":\"status\"}\n"u8);
        using var reader = new StreamReader(new NetworkStream(socket), Encoding.UTF8);
        return JsonNode.Parse(reader.ReadLine()!)!["status"];
    }
}
