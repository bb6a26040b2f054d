using System.Buffers;
using Microsoft.Win32.SafeHandles;
using Pageferry.Memory;

namespace Pageferry.Criu;

/// <summary>
/// The pages of processes that <c>criu dump --lazy-pages</c> has dumped and keeps frozen, read from the processes themselves: in any order, any number of times, and without
/// CRIU's pipes, which have to be as large as what is asked for.
/// </summary>
public sealed class FrozenPages : IDisposable
{
    /// <summary>The most pages of one answer, whatever is asked for: a client takes less, and asks again.</summary>
    private const ulong MostPages = 1 << 14;

    /// <summary>How much is read at a time, beside a header.</summary>
    private const int PiecePages = 64;

    private readonly Dictionary<ulong, ProcessMemory> _processes = [];
    private readonly PageServerForm _form;
    private long _pagesServed;

    private FrozenPages(PageServerForm form) => _form = form;

    /// <summary>How many pages the images leave to be fetched.</summary>
    public ulong LazyPages { get; private set; }

    /// <summary>How many pages were sent.</summary>
    public ulong PagesServed => (ulong)Interlocked.Read(ref _pagesServed);

    /// <summary>Opens the memory of processes that are frozen.</summary>
    /// <param name="imagesDirectory">What was dumped of them.</param>
    /// <param name="pids">The process ids here of those in the images, whose ids are those of their own pid namespace.</param>
    /// <returns>The pages, which the caller disposes.</returns>
    /// <exception cref="ImageException">An image is missing or makes no sense, or has another process.</exception>
    /// <exception cref="IOException">The memory can't be read.</exception>
    public static FrozenPages Open(string imagesDirectory, IReadOnlyDictionary<int, int> pids)
    {
        var images = ImageSet.Open(imagesDirectory);
        var maps = new Dictionary<int, Pagemap>();
        foreach (ProcessEntry process in images.ReadProcesses())
        {
            if (images.HasMemory(process.Pid))
            {
                maps.Add(process.Pid, images.ReadPagemap(process.Pid));
            }
        }

        var frozen = new FrozenPages(maps.Values.Select(map => map.Form).FirstOrDefault(form => form is not null) ?? PageServerForm.Header32);
        try
        {
            foreach ((int pid, Pagemap map) in maps)
            {
                int here = pids.TryGetValue(pid, out int found) ? found : throw new ImageException(map.File, $"is of process {pid}, which is none of those that were to be dumped.");
                SafeFileHandle file = File.OpenHandle($"/proc/{here}/mem", FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
                var memory = new ProcessMemory(here, file, LazyRanges(map));
                frozen._processes.Add((ulong)pid, memory);
                frozen.LazyPages += memory.Ranges.Aggregate(0UL, static (sum, range) => sum + (range.Length / Page.Size));
            }

            return frozen;
        }
        catch
        {
            frozen.Dispose();
            throw;
        }
    }

    /// <summary>Answers the requests of one lazy restore, in their order.</summary>
    /// <param name="client">The connection.</param>
    /// <returns>Whether the client said that it needs no more; else it went away.</returns>
    /// <exception cref="IOException">The connection failed, the client asked for what makes no sense, or a process can't be read any more.</exception>
    public bool Serve(Stream client)
    {
        byte[] buffer = ArrayPool<byte>.Shared.Rent(PageServerMessage.MostBytes + (PiecePages * Page.Size));
        try
        {
            int header = PageServerMessage.BytesOf(_form);
            while (true)
            {
                int received = client.ReadAtLeast(buffer.AsSpan(0, header), header, throwOnEndOfStream: false);
                if (received < header)
                {
                    return false;
                }

                var request = PageServerMessage.Read(buffer, _form);
                switch (request.Command)
                {
                    case PageServerCommand.Get when request.Address % Page.Size == 0 && request.Pages > 0:
                        Answer(in request, client, buffer);
                        break;
                    case PageServerCommand.Close or PageServerCommand.ForceClose:
                        return true;
                    case PageServerCommand.GiveUp:
                        return false;
                    default:
                        throw new PageServerException($"The restore sent command {request.Command} for {request.Pages} pages at 0x{request.Address:x}, which makes no sense.");
                }
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    /// <summary>Closes the memory.</summary>
    public void Dispose()
    {
        foreach (ProcessMemory memory in _processes.Values)
        {
            memory.File.Dispose();
        }
    }

    /// <summary>What is to be fetched, in pieces that don't touch each other.</summary>
    private static GuestRegion[] LazyRanges(Pagemap map)
    {
        var ranges = new List<GuestRegion>();
        foreach (PagemapEntry entry in map.Entries.Where(entry => entry.Flags.HasFlag(PagemapFlags.Lazy)))
        {
            if (ranges.Count > 0 && ranges[^1].End == entry.Address)
            {
                ranges[^1] = ranges[^1] with { Length = entry.End - ranges[^1].Gpa };
            }
            else
            {
                ranges.Add(new GuestRegion(entry.Address, entry.End - entry.Address));
            }
        }

        return [.. ranges];
    }

    private void Answer(in PageServerMessage request, Stream client, byte[] buffer)
    {
        // What is not there is answered by 0 pages: the client knows what that means.
        ProcessMemory? process = _processes.GetValueOrDefault(request.Id);
        ulong pages = process is null ? 0 : Math.Min(Math.Min(request.Pages, MostPages), process.CountFrom(request.Address));
        (request with { Command = PageServerCommand.AddWithFlags, Flags = PagemapFlags.Present, Pages = pages }).Write(buffer, _form);
        int header = PageServerMessage.BytesOf(_form);
        ulong sent = 0;
        do
        {
            int content = (int)Math.Min(pages - sent, PiecePages) * Page.Size;
            process?.Read(request.Address + (sent * Page.Size), buffer.AsSpan(header, content));
            client.Write(buffer, 0, header + content);
            sent += (ulong)content / Page.Size;
            header = 0;
        }
        while (sent < pages);

        _ = Interlocked.Add(ref _pagesServed, (long)pages);
    }

    /// <summary>A process's memory, and what of it is to be fetched, ascending.</summary>
    private sealed record ProcessMemory(int Pid, SafeFileHandle File, GuestRegion[] Ranges)
    {
        /// <summary>How many pages there are from an address on.</summary>
        internal ulong CountFrom(ulong address)
        {
            int low = 0;
            for (int high = Ranges.Length; low < high;)
            {
                int middle = (low + high) / 2;
                (low, high) = Ranges[middle].End <= address ? (middle + 1, high) : (low, middle);
            }

            return low < Ranges.Length && Ranges[low].Gpa <= address ? (Ranges[low].End - address) / Page.Size : 0;
        }

        internal void Read(ulong address, Span<byte> content)
        {
            for (int done = 0; done < content.Length;)
            {
                int read;
                try
                {
                    read = RandomAccess.Read(File, content[done..], (long)address + done);
                }
                catch (IOException failure)
                {
                    throw new PageServerException($"The memory of process {Pid} at 0x{address + (ulong)done:x} can't be read: {failure.Message}. Was it killed while it was moved?");
                }

                done += read > 0 ? read : throw new PageServerException($"Process {Pid} is gone, and its memory with it: it was killed while it was moved.");
            }
        }
    }
}
