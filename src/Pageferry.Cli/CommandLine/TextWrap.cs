namespace Pageferry.Cli;

/// <summary>Breaks text into lines that fit a terminal of 80 columns.</summary>
internal static class TextWrap
{
    /// <summary>The width that everything is written for.</summary>
    internal const int Columns = 80;

    /// <summary>Breaks a text between words; a longer word stays whole.</summary>
    /// <param name="text">The text.</param>
    /// <param name="indent">What each line after the first begins with.</param>
    /// <param name="firstIndent">What the first line begins with.</param>
    /// <returns>The lines; none for a text without words.</returns>
    internal static IEnumerable<string> Lines(string text, string indent, string firstIndent)
    {
        string line = firstIndent;
        bool empty = true;
        foreach (string word in text.Split(' ', StringSplitOptions.RemoveEmptyEntries))
        {
            if (!empty && line.Length + 1 + word.Length > Columns)
            {
                yield return line;
                line = indent;
                empty = true;
            }

            line += empty ? word : $" {word}";
            empty = false;
        }

        if (!empty)
        {
            yield return line;
        }
    }
}
