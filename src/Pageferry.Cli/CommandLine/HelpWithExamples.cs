using System.CommandLine;
using System.CommandLine.Help;
using System.CommandLine.Invocation;

namespace Pageferry.Cli;

/// <summary>Help that fits 80 columns and ends with examples, because people copy those.</summary>
/// <param name="help">The library's own help.</param>
/// <param name="examples">The example lines of each command that has some.</param>
internal sealed class HelpWithExamples(HelpAction help, IReadOnlyDictionary<Command, string[]> examples) : SynchronousCommandLineAction
{
    /// <inheritdoc/>
    public override bool ClearsParseErrors => true;

    /// <inheritdoc/>
    public override int Invoke(ParseResult parseResult)
    {
        help.MaxWidth = TextWrap.Columns;
        int code = help.Invoke(parseResult);
        if (examples.TryGetValue(parseResult.CommandResult.Command, out string[]? lines))
        {
            TextWriter output = parseResult.InvocationConfiguration.Output;
            output.WriteLine("Examples:");
            foreach (string line in lines)
            {
                output.WriteLine($"  {line}");
            }

            output.WriteLine();
        }

        return code;
    }
}
