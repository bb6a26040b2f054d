using System.Net;
using System.Net.Sockets;
using Pageferry.Criu;
using Pageferry.Criu.Tests;
using Pageferry.Linux;
using Pageferry.Memory;

namespace Pageferry.Fuzz;

/// <summary>
/// A lazy-pages daemon that hears answers of a page server: it takes in, whole, what answers what it asked for, and leaves the server at the first word that makes no sense. The first byte of an
/// input says in which form headers are; addresses count from where the memory begins.
/// </summary>
internal static class CriuAnswers
{
    /// <summary>What is asked for, in this order: two pieces in the background, and a page that is waited for.</summary>
    internal static readonly (ulong Page, int Count)[] Asked = [(0, 3), (3, 2), (Pages - 1, 1)];

    private const ulong Pages = 8;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(8);

    /// <summary>Has a daemon hear answers.</summary>
    /// <exception cref="PageServerException">It left the server for what it said.</exception>
    internal static void Take(byte[] input)
    {
        if (input.Length == 0)
        {
            return;
        }

        PageServerForm form = FormOf(input[0]);
        byte[] answers = input[1..];
        using MappedRegion region = MappedRegion.MapAnonymous(Pages * Page.Size);
        var userfaultfd = Userfaultfd.Open(UserfaultfdFeatures.None);
        _ = userfaultfd.Register(region.Address, region.Length, UserfaultfdModes.Missing);
        var expected = new byte[Pages][];
        bool makesSense = Foretell(answers, form, region.Address, expected);
        using var server = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        server.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        server.Listen();
        using var loss = new HeardLoss();
        using var content = new RemoteContent(server.LocalEndPoint!, form, loss, RemoteContent.LongestSilence).Connect();
        using Socket daemon = server.Accept();
        using var process = new LazyProcess(TestImages.Pid, new FaultEngine(GuestMemory.OfProcess([new(region.Address, region.Length)], userfaultfd)), content, _ => { });
        content.Fill(process, filler: 0, Asked[0].Page, Asked[0].Count);
        content.Fill(process, filler: 0, Asked[1].Page, Asked[1].Count);
        content.Demand(process, [Asked[2].Page]);
        Say(daemon, answers, Asked.Length * PageServerMessage.BytesOf(form));
        string why = loss.Await(s_patience);
        FuzzTargets.Hold(makesSense == why.Contains("closed the connection", StringComparison.Ordinal), $"it is left for what it said, and not for '{why}'");
        var found = new byte[Page.Size];
        for (ulong page = 0; page < Pages; page++)
        {
            // What came last may still be placed by the thread that received it.
            bool isThere = SpinWait.SpinUntil(() => process.States[page] == PageState.Present, expected[page] is null ? TimeSpan.Zero : s_patience);
            FuzzTargets.Hold(isThere == expected[page] is not null, $"page {page} is there if it came whole");
            if (expected[page] is { } bytes)
            {
                region.CopyOut(page * Page.Size, found);
                FuzzTargets.Hold(found.AsSpan().SequenceEqual(bytes), $"page {page} is as it came");
            }
        }

        if (!makesSense)
        {
            throw new PageServerException(why);
        }
    }

    /// <summary>The form of headers that the first byte of an input says.</summary>
    internal static PageServerForm FormOf(byte first) => first % 2 == 0 ? PageServerForm.Header24 : PageServerForm.Header32;

    /// <summary>Gives answers the addresses that memory has, and foretells what comes of them.</summary>
    /// <returns>Whether all of them make sense, as far as they go.</returns>
    private static bool Foretell(byte[] answers, PageServerForm form, ulong start, byte[]?[] expected)
    {
        var asked = new Queue<(ulong Page, int Count)>(Asked);
        int header = PageServerMessage.BytesOf(form);
        for (int at = 0; at + header <= answers.Length;)
        {
            PageServerMessage answer = PageServerMessage.Read(answers.AsSpan(at), form) is var told ? told with { Address = told.Address + start } : default;
            if (!asked.TryDequeue(out (ulong Page, int Count) oldest) || answer.Command != PageServerCommand.AddWithFlags || answer.Id != TestImages.Pid
                || answer.Address != start + (oldest.Page * Page.Size) || answer.Pages == 0 || answer.Pages > (ulong)oldest.Count)
            {
                return false;
            }

            answer.Write(answers.AsSpan(at), form);
            at += header;
            int pages = (int)answer.Pages;
            for (int i = 0; i < pages && at + (pages * Page.Size) <= answers.Length; i++)
            {
                expected[oldest.Page + (ulong)i] = answers[(at + (i * Page.Size))..(at + ((i + 1) * Page.Size))];
            }

            at += pages * Page.Size;
            if (pages < oldest.Count)
            {
                asked.Enqueue((oldest.Page + (ulong)pages, oldest.Count - pages));
            }
        }

        return true;
    }

    /// <summary>Answers when everything was asked for, and ends.</summary>
    private static void Say(Socket daemon, byte[] answers, int requestBytes)
    {
        var requests = new byte[requestBytes];
        for (int received = 0; received < requests.Length;)
        {
            received += daemon.Receive(requests.AsSpan(received));
        }

        try
        {
            for (int sent = 0; sent < answers.Length;)
            {
                sent += daemon.Send(answers.AsSpan(sent));
            }

            daemon.Shutdown(SocketShutdown.Send);
        }
        catch (SocketException failure) when (failure.SocketErrorCode is SocketError.ConnectionReset or SocketError.Shutdown or SocketError.NotConnected)
        {
            // It did not want to hear more.
        }
    }
}
