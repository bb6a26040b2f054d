namespace Pageferry.Criu;

/// <summary>A folder of images that CRIU wrote when it dumped a tree of processes.</summary>
/// <remarks>Nothing in an image is believed: what makes no sense is an <see cref="ImageException"/> that names the file.</remarks>
public sealed class ImageSet
{
    /// <summary>More dumps on top of each other than anybody makes: a chain as long leads back to itself.</summary>
    private const int MostParents = 1024;

    private readonly string _folder;
    private readonly int _depth;

    private ImageSet(string folder, int depth)
    {
        _folder = folder;
        _depth = depth;
    }

    /// <summary>Opens a folder of images.</summary>
    /// <param name="folder">The folder.</param>
    /// <returns>The images.</returns>
    /// <exception cref="ImageException">There is no inventory, or one of an unknown version.</exception>
    public static ImageSet Open(string folder)
    {
        var images = new ImageSet(folder, 0);
        Inventory.Check(images.Read("inventory.img", ImageFile.INVENTORY_MAGIC));
        return images;
    }

    /// <summary>Reads which processes were dumped, parents before their children.</summary>
    /// <returns>At least one.</returns>
    /// <exception cref="ImageException">The image is missing or makes no sense.</exception>
    public IReadOnlyList<ProcessEntry> ReadProcesses() => ProcessTree.Read(Read("pstree.img", ImageFile.PSTREE_MAGIC));

    /// <summary>Whether a process had memory when it was dumped: one that had ended and was not waited for has none.</summary>
    /// <param name="pid">The process.</param>
    /// <returns>Whether there is an image of its mappings, or of its pages: one without the other is for who reads them to complain of.</returns>
    public bool HasMemory(int pid) => File.Exists(PathOf($"mm-{pid}.img")) || File.Exists(PathOf($"pagemap-{pid}.img"));

    /// <summary>Reads which pages of a process were dumped.</summary>
    /// <param name="pid">The process.</param>
    /// <returns>The pagemap.</returns>
    /// <exception cref="ImageException">The image is missing or makes no sense.</exception>
    public Pagemap ReadPagemap(int pid) => Pagemap.Read(Read($"pagemap-{pid}.img", ImageFile.PAGEMAP_MAGIC));

    /// <summary>Reads the mappings of a process.</summary>
    /// <param name="pid">The process.</param>
    /// <returns>The mappings.</returns>
    /// <exception cref="ImageException">The image is missing or makes no sense.</exception>
    public MemoryMap ReadMemoryMap(int pid) => MemoryMap.Read(Read($"mm-{pid}.img", ImageFile.MM_MAGIC));

    /// <summary>Opens the content of pages.</summary>
    /// <param name="pagesId">What the pagemap says.</param>
    /// <returns>The image, which the caller disposes.</returns>
    /// <exception cref="ImageException">The image can't be opened.</exception>
    public PagesFile OpenPages(uint pagesId) => PagesFile.Open(PathOf($"pages-{pagesId}.img"));

    /// <summary>Opens the images that these were taken on top of: those in the folder, or behind the link, <c>parent</c>.</summary>
    /// <returns>The images; null if there are none.</returns>
    /// <exception cref="ImageException">The chain of images does not end.</exception>
    public ImageSet? OpenParent()
    {
        string link = PathOf("parent");
        if (!Directory.Exists(link))
        {
            return null;
        }

        // Link by link, since the kernel follows no more than 40 of them in one path.
        string parent = Directory.ResolveLinkTarget(link, returnFinalTarget: true)?.FullName ?? link;
        return _depth < MostParents
            ? new ImageSet(parent, _depth + 1)
            : throw new ImageException(link, $"is the parent of {MostParents} dumps: the links lead in a circle.");
    }

    private string PathOf(string name) => Path.Combine(_folder, name);

    private ImageFile Read(string name, uint magic) => ImageFile.Read(PathOf(name), magic);
}
