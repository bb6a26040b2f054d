using Microsoft.Win32.SafeHandles;
using Pageferry.Memory;

namespace Pageferry.Criu;

/// <summary>The content of pages, one behind the other: <c>pages-ID.img</c>. Read at positions, by any number of threads.</summary>
public sealed class PagesFile : IDisposable
{
    private readonly SafeFileHandle _file;

    private PagesFile(string path, SafeFileHandle file, ulong pageCount)
    {
        Path = path;
        _file = file;
        PageCount = pageCount;
    }

    /// <summary>The image.</summary>
    public string Path { get; }

    /// <summary>How many whole pages it has.</summary>
    public ulong PageCount { get; }

    /// <summary>Opens a pages image.</summary>
    /// <param name="path">Where it is.</param>
    /// <returns>The image, which the caller disposes.</returns>
    /// <exception cref="ImageException">It can't be opened.</exception>
    public static PagesFile Open(string path)
    {
        try
        {
            // Pages are asked for in the order in which a process touches them.
            SafeFileHandle file = File.OpenHandle(path, options: FileOptions.RandomAccess);
            return new PagesFile(path, file, (ulong)RandomAccess.GetLength(file) / Page.Size);
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            throw new ImageException(path, $"can't be opened: {failure.Message}", failure);
        }
    }

    /// <summary>Reads pages.</summary>
    /// <param name="page">The first, counted from the beginning of the image.</param>
    /// <param name="content">Where to; its length says how many, a page multiple.</param>
    /// <exception cref="ImageException">The image has no such pages any more, or can't be read.</exception>
    public void Read(ulong page, Span<byte> content)
    {
        long at = checked((long)page * Page.Size);
        try
        {
            for (int done = 0; done < content.Length;)
            {
                int read = RandomAccess.Read(_file, content[done..], at + done);
                done += read > 0 ? read : throw new ImageException(Path, $"ends at byte {at + done}, within what the pagemap says it holds.");
            }
        }
        catch (IOException failure) when (failure is not ImageException)
        {
            throw new ImageException(Path, $"can't be read at byte {at}: {failure.Message}", failure);
        }
    }

    /// <summary>Closes the image.</summary>
    public void Dispose() => _file.Dispose();
}
