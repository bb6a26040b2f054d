namespace Pageferry.Cli;

/// <summary>What a client asks of a holder, read from its packet.</summary>
internal readonly ref struct HoldQuestion(HoldVerb verb, HoldStage stage, string name, ReadOnlySpan<byte> secret, ReadOnlySpan<byte> blob)
{
    /// <summary>What to do.</summary>
    internal HoldVerb Verb { get; } = verb;

    /// <summary>To which stage, where it has one.</summary>
    internal HoldStage Stage { get; } = stage;

    /// <summary>With what.</summary>
    internal string Name { get; } = name;

    /// <summary>What proves that the client may.</summary>
    internal ReadOnlySpan<byte> Secret { get; } = secret;

    /// <summary>What to keep beside the descriptors.</summary>
    internal ReadOnlySpan<byte> Blob { get; } = blob;
}
