using System.Security.Cryptography;
using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary>What a holder keeps under one name.</summary>
/// <param name="file">All that is known of it beside the descriptors; owned by the entry.</param>
/// <param name="descriptors">The descriptors; owned by the entry.</param>
internal sealed class HeldEntry(HeldFile file, FileDescriptor[] descriptors) : IDisposable
{
    /// <summary>All that is known of it beside the descriptors.</summary>
    internal HeldFile File { get; } = file;

    /// <summary>The descriptors.</summary>
    internal FileDescriptor[] Descriptors { get; } = descriptors;

    /// <summary>The connection that has it; null if none does.</summary>
    internal HoldClient? Owner { get; set; }

    /// <summary>Whether a secret is its, found out in a time that does not tell where they differ.</summary>
    internal bool Knows(ReadOnlySpan<byte> asked) => CryptographicOperations.FixedTimeEquals(File.Secret, asked);

    /// <summary>Closes the descriptors.</summary>
    public void Dispose()
    {
        File.Dispose();
        Array.ForEach(Descriptors, static descriptor => descriptor.Dispose());
    }
}
