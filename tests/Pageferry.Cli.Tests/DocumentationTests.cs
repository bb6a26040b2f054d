using System.CommandLine;
using System.Runtime.CompilerServices;
using System.Text.RegularExpressions;

namespace Pageferry.Cli.Tests;

/// <summary>docs/cli.md has every command and every option that the command line takes, and README.md the program that samples/LazyRange is.</summary>
public sealed class DocumentationTests
{
    public static TheoryData<string, string> Words
    {
        get
        {
            var words = new TheoryData<string, string>();
            Add(words, CommandTree.Create(), string.Empty);
            return words;
        }
    }

    [Theory]
    [MemberData(nameof(Words))]
    public async Task It_names_every_command_and_option(string section, string word)
    {
        string[] lines = await File.ReadAllLinesAsync(Path.Combine(SourceFolder(), "../../docs/cli.md"));
        string text = string.Join('\n', section.Length == 0 ? lines : Section(lines, section));
        Assert.Matches($@"(?<![\w-]){Regex.Escape(word)}(?![\w-])", text);
    }

    [Fact]
    public async Task The_readme_shows_the_sample_as_it_is()
    {
        const string Begin = "```csharp\n";
        string readme = await File.ReadAllTextAsync(Path.Combine(SourceFolder(), "../../README.md"));
        string sample = await File.ReadAllTextAsync(Path.Combine(SourceFolder(), "../../samples/LazyRange/Program.cs"));
        int at = readme.IndexOf(Begin, StringComparison.Ordinal) + Begin.Length;
        Assert.Equal(sample.TrimEnd(), readme[at..readme.IndexOf("```", at, StringComparison.Ordinal)].TrimEnd());
    }

    /// <summary>From a heading that begins with a name to the next one of its level.</summary>
    private static IEnumerable<string> Section(string[] lines, string name)
    {
        int begin = Array.FindIndex(lines, line => line.StartsWith('#') && line.TrimStart('#').StartsWith($" {name}", StringComparison.Ordinal));
        Assert.True(begin >= 0, $"docs/cli.md has no section '{name}'.");
        int level = LevelOf(lines[begin]);
        return lines.Skip(begin).Take(1).Concat(lines.Skip(begin + 1).TakeWhile(line => !line.StartsWith('#') || LevelOf(line) > level));
    }

    private static int LevelOf(string heading) => heading.Length - heading.TrimStart('#').Length;

    /// <summary>What is said of all commands is said once, above their sections.</summary>
    private static void Add(TheoryData<string, string> words, Command command, string path)
    {
        string section = command.Parents.OfType<RootCommand>().Any() || path.Length == 0 ? path : path.Split(' ')[0];
        foreach (Option option in command.Options.Where(option => !option.Hidden))
        {
            bool isOfAll = option.Recursive || option.Name == "--json";
            // Not the spellings of another system: /h, /?.
            foreach (string name in option.Aliases.Append(option.Name).Where(name => name.StartsWith('-')))
            {
                words.Add(isOfAll ? string.Empty : section, name);
            }
        }

        foreach (Command sub in command.Subcommands.Where(sub => !sub.Hidden))
        {
            string name = $"{path} {sub.Name}".Trim();
            words.Add(string.Empty, name);
            Add(words, sub, name);
        }
    }

    private static string SourceFolder([CallerFilePath] string file = "") => Path.GetDirectoryName(file)!;
}
