using System.CommandLine;

namespace Pageferry.Cli;

/// <summary><c>pageferry vm serve</c>: goes on for a source whose process is gone.</summary>
internal static class VmServeCommand
{
    /// <summary>Its name.</summary>
    internal const string Name = "serve";

    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        Option<string?> holder = CommonOptions.Holder("Where the 'pageferry hold' listens that the guest was moved with.");
        holder.Required = true;
        Option<string> control = CommonOptions.Control("Where to make the control socket, for 'recover' and 'vm status'.");
        Option<TimeSpan?> reconnectFor = CommonOptions.ReconnectFor("the destination");
        reconnectFor.Description = "How long the destination is looked for: a number and s, m or h. Default: as 'vm migrate' was told.";
        Option<bool> json = CommonOptions.Json();
        Option<bool> endWithInput = CommonOptions.EndWithInput();
        var command = new Command(Name, "Serve the memory of a guest that has left, for a process that died, until it has all.") { holder, control, reconnectFor, json, endWithInput };
        examples[command] = ["pageferry vm serve --holder /run/pageferry/holder.sock --control /tmp/a.sock"];
        command.SetAction((result, _) =>
        {
            string path = result.GetRequiredValue(control);
            bool held = result.GetValue(endWithInput);
            if (held)
            {
                Lifeline.Watch(path);
            }

            var options = new VmProcessOptions(path, new VmOutput(result.GetValue(json)), held, DeliveryWord.Auto);
            return VmProcess.ServeAsync(result.GetRequiredValue(holder)!, result.GetValue(reconnectFor), options);
        });
        return command;
    }
}
