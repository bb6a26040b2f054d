namespace Pageferry.Criu;

/// <summary>An image of CRIU's can't be used: which file, and what is wrong with it.</summary>
public sealed class ImageException : IOException
{
    /// <summary>Makes the exception.</summary>
    /// <param name="file">The image.</param>
    /// <param name="problem">What is wrong, as a sentence without its subject: "ends within a record.".</param>
    /// <param name="inner">The cause.</param>
    public ImageException(string file, string problem, Exception? inner = null)
        : base($"{file} {problem}", inner) => File = file;

    /// <summary>The image.</summary>
    public string File { get; }
}
