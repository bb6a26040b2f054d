namespace Pageferry.Cli;

/// <summary>What can't be taken back is done when a person has read its price and agreed.</summary>
internal static class Confirmation
{
    /// <summary>Says the price, and asks.</summary>
    /// <param name="price">What it costs, in whole sentences.</param>
    /// <param name="isGiven">Whether the user agreed already, with <c>--yes</c>.</param>
    /// <exception cref="CommandException">The user did not agree, or can't be asked: nothing was done.</exception>
    internal static void Require(string price, bool isGiven)
    {
        foreach (string line in TextWrap.Lines(price, string.Empty, string.Empty))
        {
            Console.Error.WriteLine(line);
        }

        if (isGiven)
        {
            return;
        }

        if (Console.IsInputRedirected)
        {
            throw new CommandException("Nothing was done: nobody is at a terminal to agree. Say --yes to agree beforehand.");
        }

        Console.Error.Write("Go on? [y/N] ");
        if (Console.ReadLine()?.Trim() is not ("y" or "Y" or "yes"))
        {
            throw new CommandException("Nothing was done.");
        }
    }
}
