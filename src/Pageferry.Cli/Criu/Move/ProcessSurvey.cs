using System.Globalization;

namespace Pageferry.Cli;

/// <summary>A process and its descendants as they are before they are moved: what goes along, and what is in the way.</summary>
internal sealed class ProcessSurvey
{
    private const int MostFiles = 4096;

    private readonly Dictionary<int, string[]> _descriptors;

    private ProcessSurvey(int root, int[] pids)
    {
        Root = root;
        Pids = pids;
        _descriptors = pids.ToDictionary(pid => pid, static pid => ProcFiles.Numbers($"/proc/{pid}/fd").Select(fd => ProcFiles.Link($"/proc/{pid}/fd/{fd}")).OfType<string>().ToArray());
        var inodes = _descriptors.Values.SelectMany(static links => links).Where(static link => link.StartsWith("socket:[", StringComparison.Ordinal)).Select(static link => link[8..^1]).ToHashSet(StringComparer.Ordinal);
        Sockets = [.. TcpSocket.Of(root).Where(socket => inodes.Contains(socket.Inode))];
    }

    /// <summary>The first process.</summary>
    internal int Root { get; }

    /// <summary>All of them, parents first.</summary>
    internal IReadOnlyList<int> Pids { get; }

    /// <summary>Their TCP sockets.</summary>
    internal IReadOnlyList<TcpSocket> Sockets { get; }

    /// <summary>Looks at a process.</summary>
    /// <param name="pid">The process.</param>
    /// <exception cref="CommandException">There is none, or it can't be looked at.</exception>
    internal static ProcessSurvey Of(int pid)
    {
        if (!Directory.Exists($"/proc/{pid}"))
        {
            throw new CommandException($"There is no process {pid}. Its number is that of the pid namespace that this command runs in.");
        }

        return new ProcessSurvey(pid, [.. Tree(pid)]);
    }

    /// <summary>The process ids here by those in the pid namespace of the first process, which are those of images.</summary>
    internal Dictionary<int, int> PidsByImage() => Tree(Root).ToDictionary(static pid => InNamespace($"/proc/{pid}"), static pid => pid);

    /// <summary>What to tell the destination.</summary>
    /// <param name="criu">The CRIU here.</param>
    /// <param name="traits">How it is moved.</param>
    internal MoveOffer Offer(CriuProgram criu, CriuTraits traits) => new()
    {
        Criu = $"{criu.Version}",
        Pid = InNamespace($"/proc/{Root}"),
        Ids = [.. Pids.SelectMany(static pid => ProcFiles.Numbers($"/proc/{pid}/task").Select(tid => InNamespace($"/proc/{pid}/task/{tid}"))).Order()],
        Listening = [.. Sockets.Where(static socket => socket.IsListening).Select(static socket => $"{socket.Local}")],
        Files = [.. Files().Take(MostFiles)],
        Traits = traits,
    };

    /// <summary>What is in the way, as far as it can be seen.</summary>
    /// <param name="criu">The CRIU here.</param>
    /// <param name="traits">How it is moved.</param>
    internal IEnumerable<Obstacle> Obstacles(CriuProgram criu, CriuTraits traits)
    {
        foreach (Obstacle obstacle in Environs().Concat(CapabilityObstacles.Of(isTcp: traits.TcpEstablished)))
        {
            yield return obstacle;
        }

        if (Sockets.Count > 0 && criu.Version < new Version(4, 2) && Environment.OSVersion.Version >= new Version(6, 16))
        {
            yield return new Obstacle($"It has TCP sockets, and CRIU {criu.Version} can't dump those on Linux {Environment.OSVersion.Version.ToString(2)}.", "Give CRIU 4.2 or newer with --criu.");
        }

        TcpSocket[] connections = [.. Sockets.Where(static socket => !socket.IsListening)];
        if (connections.Length > 0 && !traits.TcpEstablished && !traits.TcpClose)
        {
            string others = connections.Length > 1 ? $" and {connections.Length - 1} more" : string.Empty;
            yield return new Obstacle(
                $"It has TCP connections: {connections[0].Local} to {connections[0].Remote}{others}.",
                "Give --tcp-established if its address moves with it, and else --tcp-close, which closes them.");
        }

        foreach ((int pid, string[] links) in _descriptors)
        {
            if (links.Contains("anon_inode:[userfaultfd]", StringComparer.Ordinal))
            {
                yield return new Obstacle($"Process {pid} uses userfaultfd itself.", "CRIU has no way to dump that: move what it does by its own means.");
            }

            if (links.Contains("anon_inode:[io_uring]", StringComparer.Ordinal))
            {
                yield return new Obstacle($"Process {pid} uses io_uring.", "CRIU has no way to dump that: start it without.");
            }

            if (!traits.ShellJob && links.Any(static link => link.StartsWith("/dev/pts/", StringComparison.Ordinal) || link == "/dev/tty"))
            {
                yield return new Obstacle($"Process {pid} has a terminal open.", "Give --shell-job and receive in a terminal, or start it without: setsid PROGRAM </dev/null >LOG 2>&1.");
            }
        }

        string[] holders = [.. ProcFiles.Lines("/proc/locks").Select(static line => line.Split(' ', StringSplitOptions.RemoveEmptyEntries)).Where(static fields => fields.Length > 4).Select(static fields => fields[4])];
        if (!traits.FileLocks && Pids.FirstOrDefault(pid => holders.Contains(pid.ToString(CultureInfo.InvariantCulture), StringComparer.Ordinal)) is > 0 and var holder)
        {
            yield return new Obstacle($"Process {holder} holds a file lock.", "Give --file-locks, which takes it along.");
        }
    }

    /// <summary>A process and its descendants, parents first.</summary>
    private static IEnumerable<int> Tree(int root)
    {
        yield return root;
        foreach (int child in ProcFiles.Numbers($"/proc/{root}/task")
            .SelectMany(tid => ProcFiles.Lines($"/proc/{root}/task/{tid}/children"))
            .SelectMany(static line => line.Split(' ', StringSplitOptions.RemoveEmptyEntries)).Select(static child => int.Parse(child, CultureInfo.InvariantCulture)))
        {
            foreach (int descendant in Tree(child))
            {
                yield return descendant;
            }
        }
    }

    /// <summary>A process's or thread's number in its own pid namespace.</summary>
    private static int InNamespace(string directory) =>
        int.TryParse(ProcFiles.Status(directory, "NSpid").Split('\t').Last(), NumberStyles.None, CultureInfo.InvariantCulture, out int pid) ? pid : 0;

    /// <summary>What has nothing to do with what the process has open.</summary>
    private IEnumerable<Obstacle> Environs()
    {
        if (Pids.Contains(Environment.ProcessId))
        {
            yield return new Obstacle("It is this command's own process or one that it descends from.", "Move it from outside: from another terminal.");
        }

        (string Name, string Option)[] namespaces = [("mnt", "--mount"), ("net", "--net"), ("pid", "--pid")];
        (string Name, string Option)[] others = [.. namespaces.Where(space => ProcFiles.Link($"/proc/{Root}/ns/{space.Name}") is { } its && its != ProcFiles.Link($"/proc/self/ns/{space.Name}"))];
        if (others.Length > 0)
        {
            yield return new Obstacle(
                $"It is in other namespaces than this command ({string.Join(", ", others.Select(static space => space.Name))}): CRIU would take these along, with their devices and mounts.",
                $"Run the command where the process is: nsenter -t {Root} {string.Join(' ', others.Select(static space => space.Option))} pageferry criu move {InNamespace($"/proc/{Root}")} ...");
        }

        foreach (int pid in Pids)
        {
            if (ProcFiles.Status($"/proc/{pid}", "TracerPid") is not ("0" or "") and var tracer)
            {
                yield return new Obstacle($"Process {pid} is traced by process {tracer}, a debugger.", "Detach it first.");
            }
        }
    }

    /// <summary>The regular files that they have open or mapped.</summary>
    private IEnumerable<MoveFile> Files()
    {
        var mapped = Pids.SelectMany(static pid => ProcFiles.Lines($"/proc/{pid}/maps")).Select(static line =>
        {
            int slash = line.IndexOf('/', StringComparison.Ordinal);
            return slash < 0 ? string.Empty : line[slash..];
        }).ToHashSet(StringComparer.Ordinal);
        foreach (string path in mapped.Union(_descriptors.Values.SelectMany(static links => links), StringComparer.Ordinal).Where(static path => path.StartsWith('/')))
        {
            // What is deleted goes along as an image.
            if (new FileInfo($"/proc/{Root}/root{path}") is { Exists: true, Attributes: var attributes, Length: var length } && !attributes.HasFlag(FileAttributes.Device) && !attributes.HasFlag(FileAttributes.Directory))
            {
                yield return new MoveFile(path, mapped.Contains(path) ? length : null);
            }
        }
    }
}
