using System.Security.Cryptography;

namespace Pageferry.Migration;

/// <summary>Names a session: 122 random bits in 16 bytes, which only the answer to its first control connection gives out. Who can name it is let in, and may come back to it.</summary>
internal readonly struct SessionId
{
    /// <summary>Its size on the wire.</summary>
    internal const int Bytes = 16;

    private readonly UInt128 _value;

    private SessionId(UInt128 value) => _value = value;

    /// <summary>What a control connection names: it has no session yet.</summary>
    internal static SessionId None => default;

    /// <summary>Whether it names none.</summary>
    internal bool IsNone => _value == default;

    /// <summary>Makes a session's id, which nobody can guess.</summary>
    internal static SessionId Create()
    {
        // From the kernel's generator, as those of RandomNumberGenerator are; but that needs OpenSSL, which nothing else without TLS does.
        Span<byte> random = stackalloc byte[Bytes];
        _ = Guid.NewGuid().TryWriteBytes(random);
        return Read(random);
    }

    /// <summary>Reads an id.</summary>
    /// <param name="bytes">16 bytes or more.</param>
    internal static SessionId Read(ReadOnlySpan<byte> bytes) => new(System.Buffers.Binary.BinaryPrimitives.ReadUInt128LittleEndian(bytes));

    /// <summary>Writes the id.</summary>
    /// <param name="bytes">16 bytes or more.</param>
    internal void Write(Span<byte> bytes) => System.Buffers.Binary.BinaryPrimitives.WriteUInt128LittleEndian(bytes, _value);

    /// <summary>Tells sessions apart where the id is not to be told: 64 bits, which leave too many ids to be tried.</summary>
    internal ulong Digest
    {
        get
        {
            Span<byte> bytes = stackalloc byte[Bytes];
            Write(bytes);
            return System.IO.Hashing.XxHash3.HashToUInt64(bytes);
        }
    }

    /// <summary>Compares in a time that tells nothing about where two ids differ.</summary>
    internal bool Matches(SessionId other)
    {
        Span<byte> mine = stackalloc byte[Bytes];
        Span<byte> theirs = stackalloc byte[Bytes];
        Write(mine);
        other.Write(theirs);
        return CryptographicOperations.FixedTimeEquals(mine, theirs);
    }
}
