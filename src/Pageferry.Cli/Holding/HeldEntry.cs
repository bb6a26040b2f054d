using System.Security.Cryptography;
using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary>What a holder keeps under one name.</summary>
/// <param name="secret">What proves that a client may have it.</param>
internal sealed class HeldEntry(byte[] secret) : IDisposable
{
    /// <summary>What is kept beside the descriptors.</summary>
    internal byte[] Blob { get; private set; } = [];

    /// <summary>The descriptors.</summary>
    internal FileDescriptor[] Descriptors { get; private set; } = [];

    /// <summary>How far it has been let go of.</summary>
    internal HoldStage Stage { get; set; }

    /// <summary>The connection that has it; null if none does.</summary>
    internal HoldClient? Owner { get; set; }

    /// <summary>Whether a secret is its, found out in a time that does not tell where they differ.</summary>
    internal bool Knows(ReadOnlySpan<byte> asked) => CryptographicOperations.FixedTimeEquals(secret, asked);

    /// <summary>Replaces what is kept.</summary>
    internal void Fill(byte[] blob, FileDescriptor[] descriptors)
    {
        Dispose();
        Blob = blob;
        Descriptors = descriptors;
    }

    /// <summary>Closes the descriptors.</summary>
    public void Dispose() => Array.ForEach(Descriptors, static descriptor => descriptor.Dispose());
}
