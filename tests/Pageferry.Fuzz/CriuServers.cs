using System.Net;
using Pageferry.Criu;
using Pageferry.Criu.Tests;

namespace Pageferry.Fuzz;

/// <summary>Page servers that anybody may talk to: whatever they say, the server goes on.</summary>
internal static class CriuServers
{
    /// <summary>A process whose pages are served, and where it has some.</summary>
    internal const ulong Process = TestImages.Pid;
    internal const ulong Address = 0x7f00_0000_0000;

    private static readonly IPEndPoint s_anyPort = new(IPAddress.Loopback, 0);
    private static readonly Lazy<PageServer> s_lazy = new(Start);

    /// <summary>Says something to a server that serves pages, and goes.</summary>
    internal static void Serve(byte[] input) => Stranger.Say(s_lazy.Value.EndPoint, input);

    /// <summary>Says something to a server that receives a dump; what it takes for one is complete or not there.</summary>
    internal static void Receive(byte[] input)
    {
        DirectoryInfo images = Directory.CreateTempSubdirectory("pageferry-fuzz-");
        try
        {
            bool isComplete;
            using (var receiver = DumpReceiver.Start(images.FullName, s_anyPort))
            {
                Stranger.Say(receiver.EndPoint, input);
                receiver.Dispose();
                isComplete = receiver.Completion.IsCompletedSuccessfully;
                _ = receiver.Completion.Exception;
            }

            FuzzTargets.Hold(isComplete || images.GetFiles("pagemap-*").Length == 0, "a dump that broke off leaves nothing");
        }
        finally
        {
            images.Delete(recursive: true);
        }
    }

    private static PageServer Start()
    {
        // For as long as the process lives; the server has the files open.
        using var images = new TestImages();
        images.WritePagemap((Address, 4, PagemapFlags.Present | PagemapFlags.Lazy), (Address + 0x10000, 4, PagemapFlags.Present));
        images.WritePages(8);
        return PageServer.Start(images.Folder, s_anyPort);
    }
}
