using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary>An answer and what comes along, which is closed here when it was sent.</summary>
/// <param name="Message">The answer; it gets its question's number.</param>
/// <param name="Descriptors">What comes along.</param>
internal readonly record struct EngineAnswer(EngineMessage Message, params FileDescriptor[] Descriptors) : IDisposable
{
    /// <summary>Says that it was done.</summary>
    internal static EngineAnswer Done { get; } = new(new EngineMessage { What = string.Empty });

    /// <summary>Closes what came along.</summary>
    public void Dispose() => Array.ForEach(Descriptors, descriptor => descriptor.Dispose());
}
