using System.Text.Json;

namespace Pageferry.Cli;

/// <summary>Shows a move while it goes on: a line for each thing that happens, or JSON, an object per line.</summary>
/// <param name="json">Whether to write JSON, on standard output.</param>
/// <param name="progress">Where lines for a reader go.</param>
internal sealed class MoveDisplay(bool json, TextWriter progress)
{
    private readonly Lock _lock = new();

    /// <summary>Says how far the move is.</summary>
    internal void Show(MoveStatus status)
    {
        lock (_lock)
        {
            try
            {
                if (json)
                {
                    Console.Out.WriteLine(JsonSerializer.Serialize(status, CliJson.Default.MoveStatus));
                }
                else
                {
                    progress.WriteLine(status.Text);
                }
            }
            catch (IOException)
            {
                // Nobody reads any more; the processes are none of the reader's business.
            }
        }
    }
}
