namespace Pageferry.Cli;

/// <summary>What the command's exit status says.</summary>
internal static class ExitCode
{
    /// <summary>Everything asked for was done.</summary>
    internal const int Done = 0;

    /// <summary>It was tried and failed, or the guest's own checks failed.</summary>
    internal const int Failure = 1;

    /// <summary>The command line asks for something that can't be; nothing was tried.</summary>
    internal const int Usage = 2;

    /// <summary>Ended by Ctrl-C, as shells count it (128 + SIGINT).</summary>
    internal const int Interrupted = 130;
}
