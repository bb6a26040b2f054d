using System.Globalization;
using System.Text;

namespace Pageferry.Cli;

/// <summary>Writes HTML that is well-formed XML too. All text is escaped: some of it comes from peers.</summary>
internal sealed class PageWriter
{
    private readonly StringBuilder _text = new();
    private readonly Stack<string> _open = new();

    /// <summary>A number as attributes have it.</summary>
    internal static string Number(double value) => value.ToString("0.##", CultureInfo.InvariantCulture);

    /// <summary>Opens an element.</summary>
    internal PageWriter Open(string name, params ReadOnlySpan<(string Name, object Value)> attributes)
    {
        Begin(name, attributes);
        _ = _text.Append('>');
        _open.Push(name);
        return this;
    }

    /// <summary>Closes the element opened last.</summary>
    internal PageWriter Close()
    {
        _ = _text.Append("</").Append(_open.Pop()).Append('>');
        return this;
    }

    /// <summary>Writes an element without content: of those of HTML that never have any, and of SVG.</summary>
    internal PageWriter Leaf(string name, params ReadOnlySpan<(string Name, object Value)> attributes)
    {
        Begin(name, attributes);
        _ = _text.Append("/>");
        return this;
    }

    /// <summary>Writes an element that has nothing but text.</summary>
    internal PageWriter Element(string name, string text, params ReadOnlySpan<(string Name, object Value)> attributes) => Open(name, attributes).Text(text).Close();

    /// <summary>Writes text.</summary>
    internal PageWriter Text(string text)
    {
        foreach (Rune rune in text.EnumerateRunes())
        {
            _ = rune.Value switch
            {
                '<' => _text.Append("&lt;"),
                '>' => _text.Append("&gt;"),
                '&' => _text.Append("&amp;"),
                '"' => _text.Append("&quot;"),

                // What no page may have.
                (< ' ' and not ('\t' or '\n' or '\r')) or 0xFFFE or 0xFFFF => _text.Append('\uFFFD'),
                _ => _text.Append(rune.ToString()),
            };
        }

        return this;
    }

    /// <summary>Writes what is markup, or a style or JSON, already: our own words only.</summary>
    internal PageWriter Verbatim(string markup)
    {
        _ = _text.Append(markup);
        return this;
    }

    /// <inheritdoc/>
    public override string ToString() => _text.ToString();

    private void Begin(string name, ReadOnlySpan<(string Name, object Value)> attributes)
    {
        _ = _text.Append('<').Append(name);
        foreach ((string attribute, object value) in attributes)
        {
            _ = _text.Append(' ').Append(attribute).Append("=\"");
            _ = Text(value is double number ? Number(number) : string.Create(CultureInfo.InvariantCulture, $"{value}"));
            _ = _text.Append('"');
        }
    }
}
