using Spectre.Console;

namespace Pageferry.Cli;

/// <summary>The console that displays draw on.</summary>
internal static class CommandConsole
{
    /// <summary>Makes a console of at most 80 columns.</summary>
    /// <param name="output">Where to write: standard output, or standard error when standard output carries something else.</param>
    /// <param name="isTerminal">Whether that is a terminal, on which pictures are redrawn.</param>
    internal static IAnsiConsole Create(TextWriter output, bool isTerminal)
    {
        IAnsiConsole console = AnsiConsole.Create(new AnsiConsoleSettings
        {
            Ansi = isTerminal ? AnsiSupport.Detect : AnsiSupport.No,
            Interactive = isTerminal ? InteractionSupport.Detect : InteractionSupport.No,
            Out = new AnsiConsoleOutput(output),
        });
        console.Profile.Width = isTerminal ? Math.Min(console.Profile.Width, TextWrap.Columns) : TextWrap.Columns;
        return console;
    }
}
