using Pageferry.Memory;
using Pageferry.Migration;
using Pageferry.Snapshots;

namespace Pageferry.Cli;

/// <summary>Writes what one side of a migration has of a guest to a file.</summary>
/// <param name="path">Where it goes.</param>
/// <param name="part">Which side's half it is.</param>
/// <param name="half">What that side has, beside its memory.</param>
/// <param name="memory">Its memory, whose content does not change meanwhile.</param>
internal sealed class GuestExport(string path, SnapshotPart part, GuestHalf half, GuestMemory memory)
{
    private volatile SnapshotWriter? _writer;

    /// <summary>How far it is, from any thread.</summary>
    internal ExportReport Report => new(path, part == SnapshotPart.SourceHalf ? "source" : "destination", _writer?.Written ?? 0, memory.PageCount);

    /// <summary>Finds out whether a file can be written, before a guest is stopped for it.</summary>
    /// <param name="path">Where it is to be.</param>
    /// <exception cref="CommandException">It can't be written there.</exception>
    internal static void CheckPath(string? path)
    {
        if (path is null || !Path.IsPathFullyQualified(path) || Path.Exists(path))
        {
            throw new CommandException($"Could not write {path}: {(Path.Exists(path) ? "it is there already, and was left as it is. Choose another name." : "an absolute path is needed.")}");
        }

        try
        {
            string probe = $"{path}.{Environment.ProcessId}.tmp";
            File.WriteAllBytes(probe, []);
            File.Delete(probe);
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            throw Explain(path, failure);
        }
    }

    /// <summary>Writes it.</summary>
    /// <exception cref="CommandException">It can't be written; what the side has stays, and can be written again.</exception>
    internal void Write()
    {
        MigrationLayout layout = half.Layout;
        var header = new SnapshotHeader(part, layout.GuestId, layout.MachineKind, memory.Backing, layout.Regions, half.Session, half.Generation, half.IsPaused);
        try
        {
            using var writer = SnapshotWriter.Create(path, header, half.State.Span);
            _writer = writer;
            writer.WriteMemory(memory, half.Pages);
            writer.Finish();
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            throw Explain(path, failure);
        }
    }

    private static CommandException Explain(string path, Exception failure) => failure is SnapshotException
        ? new CommandException(failure.Message)
        : new CommandException($"Could not write {path}: {failure.Message} Choose a directory that exists, has room, and that the guest's process may write to.");
}
