namespace Pageferry.Criu;

/// <summary>Reads the processes that were dumped: <c>pstree.img</c>.</summary>
internal static class ProcessTree
{
    /// <exception cref="ImageException">The image makes no sense.</exception>
    internal static ProcessEntry[] Read(ImageFile image)
    {
        var processes = new List<ProcessEntry>();
        var known = new HashSet<int>();
        while (image.Next() is { } message)
        {
            uint pid = 0;
            uint parent = 0;
            image.ReadFields(message, (stream, field) =>
            {
                switch (field)
                {
                    case 1:
                        pid = stream.ReadUInt32();
                        return true;
                    case 2:
                        parent = stream.ReadUInt32();
                        return true;
                    default:
                        return false;
                }
            });

            // Its own number is not known yet: no process is its own parent.
            if (parent != 0 && (parent > int.MaxValue || !known.Contains((int)parent)))
            {
                throw image.Failure($"has process {pid} before its parent {parent}, or without.");
            }

            if (pid is 0 or > int.MaxValue || !known.Add((int)pid))
            {
                throw image.Failure($"has a process number {pid} that is impossible or another's.");
            }

            processes.Add(new ProcessEntry((int)pid, (int)parent));
        }

        return processes.Count > 0 ? [.. processes] : throw image.Failure("tells of no process.");
    }
}
