using System.Text.Json;

namespace Pageferry.Cli;

/// <summary>What a guest's process writes to standard output: lines for a reader, or one JSON object per line.</summary>
/// <param name="json">Whether to write JSON.</param>
internal sealed class VmOutput(bool json)
{
    private readonly Lock _lock = new();

    /// <summary>Writes that something happened.</summary>
    /// <param name="name">The event's name in JSON.</param>
    /// <param name="text">What happened, for a reader; or the line that the guest wrote.</param>
    /// <param name="status">The guest's state at that moment; null for console lines.</param>
    internal void Write(string name, string text, VmStatus? status = null)
    {
        string line = json
            ? JsonSerializer.Serialize(new VmEvent { Event = name, Text = text, Status = status }, CliJson.Default.VmEvent)
            : text;
        lock (_lock)
        {
            try
            {
                Console.Out.WriteLine(line);
            }
            catch (IOException)
            {
                // Nobody reads the output any more; the guest is none of the reader's business.
            }
        }
    }
}
