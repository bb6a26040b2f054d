using System.Reflection;

namespace Pageferry.Cli;

/// <summary>The version of this program.</summary>
internal static class BuildVersion
{
    /// <summary>As <c>--version</c> writes it.</summary>
    internal static string Text { get; } = typeof(BuildVersion).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion ?? "unknown";
}
