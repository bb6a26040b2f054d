using System.Diagnostics;

namespace Pageferry.Cli;

/// <summary>How this program starts itself again: as a NativeAOT binary, an app host, or a library under <c>dotnet</c>.</summary>
internal static class SelfCommand
{
    /// <summary>Describes a process of this same program.</summary>
    /// <param name="arguments">Its command line.</param>
    /// <returns>What <see cref="Process.Start(ProcessStartInfo)"/> takes.</returns>
    internal static ProcessStartInfo StartInfo(params ReadOnlySpan<string> arguments)
    {
        string program = Environment.ProcessPath ?? throw new CommandException("Could not find the path of this program: is /proc mounted?");
        var info = new ProcessStartInfo(program);
        if (string.Equals(Path.GetFileName(program), "dotnet", StringComparison.Ordinal))
        {
            info.ArgumentList.Add(Environment.GetCommandLineArgs()[0]);
        }

        foreach (string argument in arguments)
        {
            info.ArgumentList.Add(argument);
        }

        return info;
    }
}
