using System.Globalization;
using System.Runtime.InteropServices;
using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary>The signals that tell a command to end: Ctrl-C, SIGTERM and SIGHUP, which comes when its terminal or its connection is closed.</summary>
internal static class EndSignals
{
    private const string IgnoredName = "SigIgn:";

    /// <summary>SIGHUP, which is number 1, in a mask of signals.</summary>
    private const ulong HangUp = 1;

    /// <summary>Begins to take them. Under nohup no SIGHUP is taken. At a SIGHUP the terminal is left first: to write to one that is gone is an error.</summary>
    /// <param name="take">Is called for each, on a thread of its own.</param>
    /// <returns>Each to be disposed by the caller.</returns>
    internal static PosixSignalRegistration[] Take(Action<PosixSignalContext> take)
    {
        PosixSignalRegistration[] registrations = [PosixSignalRegistration.Create(PosixSignal.SIGINT, take), PosixSignalRegistration.Create(PosixSignal.SIGTERM, take)];
        if (IsHangUpIgnored())
        {
            return registrations;
        }

        // Of a terminal that is gone the kernel does not say that it was one.
        bool[] terminals = [!Console.IsInputRedirected, !Console.IsOutputRedirected, !Console.IsErrorRedirected];
        return
        [
            .. registrations,
            PosixSignalRegistration.Create(PosixSignal.SIGHUP, context =>
            {
                for (int descriptor = 0; descriptor < terminals.Length; descriptor++)
                {
                    if (terminals[descriptor])
                    {
                        CurrentProcess.Discard(descriptor);
                    }
                }

                take(context);
            }),
        ];
    }

    private static bool IsHangUpIgnored()
    {
        string mask = File.ReadLines("/proc/self/status").First(static line => line.StartsWith(IgnoredName, StringComparison.Ordinal))[IgnoredName.Length..];
        return (ulong.Parse(mask.Trim(), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture) & HangUp) != 0;
    }
}
