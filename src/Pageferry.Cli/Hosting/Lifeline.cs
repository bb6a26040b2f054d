using System.Diagnostics;

namespace Pageferry.Cli;

/// <summary>Ends this process when standard input closes, which it does when the process that started this one ends, however it ends.</summary>
internal static class Lifeline
{
    /// <summary>Begins to watch standard input.</summary>
    /// <param name="controlPath">The control socket, which is removed then, and its directory if nothing else is in it.</param>
    internal static void Watch(string controlPath)
    {
        var thread = new Thread(() =>
        {
            using Stream input = Console.OpenStandardInput();
            Span<byte> ignored = stackalloc byte[64];
            while (input.Read(ignored) > 0)
            {
            }

            End(controlPath);
        })
        {
            IsBackground = true,
            Name = "lifeline",
        };
        thread.Start();
    }

    private static void End(string controlPath)
    {
        try
        {
            File.Delete(controlPath);
            Directory.Delete(Path.GetDirectoryName(Path.GetFullPath(controlPath))!);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The sibling's socket is still in the directory: the last process removes it.
        }

        // An orderly end would wait for a guest whose pages can't come any more.
        Process.GetCurrentProcess().Kill();
    }
}
