using System.Text;

namespace Pageferry.Cli;

/// <summary>
/// A packet to a holder or from it. To it: version, verb, stage and the name's length, a byte each; the secret; the name; the blob. From it: version, answer, stage and 0; the
/// blob. Descriptors come along; to who puts or takes a record also, as the last one, the opening of its file (<see cref="HeldFile"/>) that makes it be its process's.
/// </summary>
internal static class HoldPacket
{
    /// <summary>The version of what is said.</summary>
    internal const byte Version = 2;

    /// <summary>Bytes of a secret.</summary>
    internal const int SecretBytes = 32;

    /// <summary>The longest name.</summary>
    internal const int MostName = 64;

    /// <summary>The longest blob.</summary>
    internal const int MostBlob = 8 << 10;

    /// <summary>The most descriptors under one name.</summary>
    internal const int MostDescriptors = 128;

    /// <summary>The longest packet.</summary>
    internal const int MostBytes = HeaderBytes + SecretBytes + MostName + MostBlob;

    /// <summary>Bytes before the secret of a question, and before the blob of an answer.</summary>
    internal const int HeaderBytes = 4;

    /// <summary>Whether a name is one: 1 to <see cref="MostName"/> letters, digits, dots, dashes and underscores of ASCII, the first of them no dot, so that it names a file.</summary>
    internal static bool IsName(string name) =>
        name.Length is > 0 and <= MostName && name[0] != '.' && name.All(static letter => char.IsAsciiLetterOrDigit(letter) || letter is '.' or '-' or '_');

    /// <summary>Writes a question.</summary>
    internal static byte[] Ask(HoldVerb verb, string name, ReadOnlySpan<byte> secret, HoldStage stage, ReadOnlySpan<byte> blob)
    {
        ArgumentOutOfRangeException.ThrowIfNotEqual(secret.Length, SecretBytes);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(blob.Length, MostBlob);
        if (!IsName(name))
        {
            throw new ArgumentException($"'{name}' is no name for a holder: 1 to {MostName} letters, digits, dots, dashes and underscores.", nameof(name));
        }

        return [Version, (byte)verb, (byte)stage, (byte)name.Length, .. secret, .. Encoding.ASCII.GetBytes(name), .. blob];
    }

    /// <summary>Reads a question.</summary>
    /// <returns>Whether it is one.</returns>
    internal static bool TryRead(ReadOnlySpan<byte> packet, out HoldQuestion question)
    {
        question = default;
        if (packet.Length < HeaderBytes + SecretBytes || packet.Length > MostBytes || packet[0] != Version)
        {
            return false;
        }

        var verb = (HoldVerb)packet[1];
        var stage = (HoldStage)packet[2];
        ReadOnlySpan<byte> rest = packet[(HeaderBytes + SecretBytes)..];
        int length = packet[3];
        if (!Enum.IsDefined(verb) || !Enum.IsDefined(stage) || length > rest.Length)
        {
            return false;
        }

        string name = Encoding.ASCII.GetString(rest[..length]);
        ReadOnlySpan<byte> blob = rest[length..];
        question = new HoldQuestion(verb, stage, name, packet.Slice(HeaderBytes, SecretBytes), blob);
        return IsName(name) && (verb == HoldVerb.Put ? stage != HoldStage.Burnt && blob.Length <= MostBlob : blob.IsEmpty);
    }
}
