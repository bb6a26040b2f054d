using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary>What a holder handed out.</summary>
/// <param name="Stage">How far it has been let go of.</param>
/// <param name="Blob">What was kept beside the descriptors.</param>
/// <param name="Descriptors">Duplicates of the descriptors, which the receiver disposes.</param>
internal sealed record HeldRecord(HoldStage Stage, byte[] Blob, FileDescriptor[] Descriptors);
