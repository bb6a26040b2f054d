using Pageferry.Linux;

namespace Pageferry.Criu;

/// <summary>Keeps what a lazy restore is served from with somebody who outlives this process, so that another one can go on (<see cref="LazyRestore.Resume"/>).</summary>
public interface IRestoreKeeper
{
    /// <summary>Has descriptors kept in place of those kept before. When this returns, they are.</summary>
    /// <param name="record">What to keep beside them: a few bytes.</param>
    /// <param name="descriptors">The descriptors, which stay the caller's.</param>
    /// <exception cref="IOException">They may not be kept; those kept before may be.</exception>
    void Keep(ReadOnlySpan<byte> record, IReadOnlyList<FileDescriptor> descriptors);

    /// <summary>Has all that is kept closed and forgotten: nothing is left to serve.</summary>
    /// <exception cref="IOException">It may be kept still.</exception>
    void Drop();
}
