using System.Globalization;
using Pageferry.Linux;
using Pageferry.Memory;

namespace Pageferry.Criu;

/// <summary>
/// Finds children whose userfaultfd closed with a daemon that died between reading of the fork and keeping it. What such a child lacks reads as zeros, so it is ended. It has the
/// memory of its parent at the same addresses, and unlike its parent's it is registered with no userfaultfd any more. One that runs another program by now lacks nothing.
/// </summary>
internal static class LostChildren
{
    /// <summary>Ends the newest children of a restored process, or of its children, that lack their userfaultfd.</summary>
    /// <param name="pid">The number of the restored process, in its own pid namespace.</param>
    /// <param name="ranges">Addresses of the memory that the parent has lazily.</param>
    /// <param name="count">How many children are lost. Older ones without a userfaultfd have all of their pages.</param>
    /// <returns>Those ended, by their numbers here; fewer than asked for if they can't be told, or are gone.</returns>
    internal static IReadOnlyList<int> End(int pid, IReadOnlyList<GuestRegion> ranges, int count)
    {
        Dictionary<int, Seen> all = Look();
        var families = new List<List<int>>();
        foreach (Seen root in all.Values.Where(seen => seen.OwnPid == pid))
        {
            if (IsRegistered(root.Pid, ranges) == true)
            {
                families.Add(FamilyOf(root.Pid, all));
            }
        }

        // Another restore of the same images has the same numbers and addresses.
        if (families is not [var family])
        {
            return [];
        }

        Dictionary<int, bool?> registered = family.ToDictionary(static member => member, member => IsRegistered(member, ranges));

        // Of each that may be the parent its newest, whatever they are: it forks no more until somebody reads of it, so what is older was not lost.
        IEnumerable<int> newest = family.Where(parent => registered[parent] == true).SelectMany(parent => Newest(family.Where(member => all[member].Parent == parent)));
        int[] lost = [.. Newest(newest.Where(child => registered[child] == false && all[child].Program == all[all[child].Parent].Program))];
        foreach (int member in lost.SelectMany(child => FamilyOf(child, all)))
        {
            try
            {
                OtherProcess.Kill(member);
            }
            catch (LinuxException failure) when (failure.Errno == Errno.ESRCH)
            {
                // It has ended by itself.
            }
        }

        return lost;

        IEnumerable<int> Newest(IEnumerable<int> members) => members.OrderByDescending(member => all[member].Started).ThenByDescending(static member => member).Take(count);
    }

    /// <summary>A process and all its descendants.</summary>
    private static List<int> FamilyOf(int root, Dictionary<int, Seen> all)
    {
        List<int> family = [root];
        for (int i = 0; i < family.Count; i++)
        {
            family.AddRange(all.Values.Where(seen => seen.Parent == family[i]).Select(static seen => seen.Pid));
        }

        return family;
    }

    private static Dictionary<int, Seen> Look()
    {
        var all = new Dictionary<int, Seen>();
        foreach (string folder in Directory.EnumerateDirectories("/proc"))
        {
            if (int.TryParse(Path.GetFileName(folder), NumberStyles.None, CultureInfo.InvariantCulture, out int pid) && TryLook(pid) is { } seen)
            {
                all[pid] = seen;
            }
        }

        return all;
    }

    private static Seen? TryLook(int pid)
    {
        try
        {
            int parent = 0;
            int ownPid = pid;
            foreach (string line in File.ReadLines($"/proc/{pid}/status"))
            {
                if (line.StartsWith("PPid:", StringComparison.Ordinal))
                {
                    parent = int.Parse(line.AsSpan("PPid:".Length), CultureInfo.InvariantCulture);
                }
                else if (line.StartsWith("NSpid:", StringComparison.Ordinal))
                {
                    ownPid = int.Parse(line.AsSpan(line.LastIndexOf('\t')), CultureInfo.InvariantCulture);
                }
            }

            // The name, in brackets, may have anything in it; the 22nd field is the 20th behind it.
            const int StartedAt = 20;
            string stat = File.ReadAllText($"/proc/{pid}/stat");
            string started = stat[stat.LastIndexOf(')')..].Split(' ')[StartedAt];
            string? program = new FileInfo($"/proc/{pid}/exe").LinkTarget;
            return new Seen(pid, parent, ownPid, ulong.Parse(started, CultureInfo.InvariantCulture), program);
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            // It has ended, or is nobody's that this daemon serves.
            return null;
        }
    }

    /// <summary>Whether memory of a process at some addresses is registered with a userfaultfd; null if it has none there, or ended.</summary>
    private static bool? IsRegistered(int pid, IReadOnlyList<GuestRegion> ranges)
    {
        bool? found = null;
        bool isThere = false;
        try
        {
            foreach (string line in File.ReadLines($"/proc/{pid}/smaps"))
            {
                if (line.StartsWith("VmFlags:", StringComparison.Ordinal))
                {
                    found = isThere ? found == true || line.Contains(" um", StringComparison.Ordinal) : found;
                }
                else if (IsMapping(line, out ulong start, out ulong end))
                {
                    isThere = ranges.Any(range => range.Gpa < end && range.End > start);
                }
            }
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            return null;
        }

        return found;
    }

    private static bool IsMapping(string line, out ulong start, out ulong end)
    {
        int dash = line.IndexOf('-', StringComparison.Ordinal);
        int space = line.IndexOf(' ', StringComparison.Ordinal);
        (start, end) = (0, 0);
        return dash > 0 && dash < space
            && ulong.TryParse(line.AsSpan(0, dash), NumberStyles.HexNumber, CultureInfo.InvariantCulture, out start)
            && ulong.TryParse(line.AsSpan(dash + 1, space - dash - 1), NumberStyles.HexNumber, CultureInfo.InvariantCulture, out end);
    }

    /// <summary>What /proc says of a process.</summary>
    /// <param name="Pid">Its number here.</param>
    /// <param name="Parent">Its parent's.</param>
    /// <param name="OwnPid">Its number in its own pid namespace.</param>
    /// <param name="Started">When, in clock ticks since the machine was started.</param>
    /// <param name="Program">The file that it runs; null of a thread of the kernel.</param>
    private sealed record Seen(int Pid, int Parent, int OwnPid, ulong Started, string? Program);
}
