using System.CommandLine;
using System.Globalization;
using System.Text.Json;

namespace Pageferry.Cli;

/// <summary><c>pageferry vm arm</c>: makes userfaults of a running guest's accesses.</summary>
internal static class VmArmCommand
{
    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        Option<string> control = CommonOptions.Control("The guest's control socket.");
        Option<GuestRange[]> range = CommonOptions.Ranges();
        Option<string?> semantics = new("--semantics")
        {
            Description = "Which accesses are userfaults: any-access (the default), or first-access, to pages that were never populated.",
            HelpName = "KIND",
            CustomParser = result => CommonOptions.Choice(result, SemanticsWord.AnyAccess, SemanticsWord.FirstAccess),
        };
        Option<string?> content = new("--content")
        {
            Description = "What the guest finds in pages that it had used: keep (the default) or drop (zeros). With any-access.",
            HelpName = "KIND",
            CustomParser = result => CommonOptions.Choice(result, ContentWord.Keep, ContentWord.Drop),
        };
        Option<bool> json = CommonOptions.Json();
        var command = new Command("arm", "Make userfaults of a running guest's accesses to its memory; each is answered at once with the page's content.") { control, range, semantics, content, json };
        command.Validators.Add(result =>
        {
            // As written: the value of an option that has an error can't be asked for.
            if (result.GetResult(semantics)?.Tokens is [{ Value: SemanticsWord.FirstAccess }] && result.GetResult(content) is not null)
            {
                result.AddError("What first-access arms has no content to keep or drop: leave out --content.");
            }
        });
        examples[command] =
        [
            "pageferry vm arm --control /tmp/a.sock",
            "pageferry vm arm --control /tmp/a.sock --range 2M+64K --range 0x800000+0x1000",
        ];
        command.SetAction(async (result, cancellation) =>
        {
            var request = new ControlRequest
            {
                Command = ControlRequest.Arm,
                Ranges = CommonOptions.TextOf(result.GetValue(range)),
                Semantics = result.GetValue(semantics),
                Content = result.GetValue(content),
            };
            using var client = ControlClient.Connect(result.GetRequiredValue(control));
            ArmingReport report = await client.ArmAsync(request, cancellation);
            await Console.Out.WriteLineAsync(result.GetValue(json)
                ? JsonSerializer.Serialize(report, CliJson.Indented.ArmingReport)
                : string.Create(CultureInfo.InvariantCulture, $"{report.PagesArmed:N0} pages are armed, {report.PagesAccessible:N0} stay accessible."));
            return ExitCode.Done;
        });
        return command;
    }
}
