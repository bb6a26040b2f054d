using System.CommandLine;

namespace Pageferry.Cli;

/// <summary><c>pageferry vm run</c>: runs a guest in the foreground.</summary>
internal static class VmRunCommand
{
    /// <summary>Its name.</summary>
    internal const string Name = "run";

    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        var guest = new Argument<string?>("GUEST") { Description = "stamp, random, or a guest image's path (static ELF64 or flat binary).", Arity = ArgumentArity.ZeroOrOne };
        var from = new Option<string?>("--from") { Description = "Run the guest that 'recover merge' made, instead of a new one.", HelpName = "SNAPSHOT" };
        Option<MemorySize> memory = CommonOptions.Memory();
        Option<int> vcpus = CommonOptions.Vcpus();
        Option<string> control = CommonOptions.Control("Where to make the guest's control socket.");
        Option<string> privilege = CommonOptions.Privilege();
        Option<string> backing = CommonOptions.Backing();
        Option<string> delivery = CommonOptions.Delivery();
        Option<string> host = CommonOptions.Host();
        Option<string> dirtyTracking = CommonOptions.DirtyTracking();
        var seed = new Option<ulong>("--seed") { Description = "What a built-in guest derives its contents from.", HelpName = "N", DefaultValueFactory = _ => 1 };
        var passes = new Option<ulong>("--passes") { Description = "Passes after which a built-in guest ends; 0 for never.", HelpName = "N" };
        Option<bool> json = CommonOptions.Json();
        Option<bool> endWithInput = CommonOptions.EndWithInput();
        var command = new Command(Name, "Run a guest in the foreground.") { guest, from, memory, vcpus, control, privilege, backing, delivery, host, dirtyTracking, seed, passes, json, endWithInput };
        examples[command] =
        [
            "pageferry vm run stamp --memory 1G --vcpus 2 --control /tmp/a.sock",
            "pageferry vm run ./guest.elf --memory 64M --control /tmp/a.sock",
            "pageferry vm run --from guest.snapshot --control /tmp/a.sock",
        ];
        Option[] ofNewGuests = [memory, vcpus, privilege, host, seed, passes];
        command.Validators.Add(result =>
        {
            bool isNew = result.GetResult(from) is null;
            if (isNew == result.GetValue(guest) is null)
            {
                result.AddError(isNew ? "Say what to run: a GUEST, or --from and a snapshot." : "A guest of --from is no new one: leave GUEST out.");
            }

            foreach (Option option in ofNewGuests.Where(option => !isNew && result.GetResult(option) is { Implicit: false }))
            {
                result.AddError($"A guest of --from is as it was: leave {option.Name} out.");
            }
        });
        command.SetAction((result, _) =>
        {
            string path = result.GetRequiredValue(control);
            bool held = result.GetValue(endWithInput);
            if (held)
            {
                Lifeline.Watch(path);
            }

            var process = new VmProcessOptions(path, new VmOutput(result.GetValue(json)), held, result.GetRequiredValue(delivery));
            if (result.GetValue(from) is { } snapshot)
            {
                return VmProcess.RunSnapshotAsync(
                    snapshot, result.GetResult(backing) is { Implicit: false } ? result.GetValue(backing) : null, result.GetRequiredValue(dirtyTracking), process);
            }

            var options = new GuestOptions(
                result.GetRequiredValue(guest)!,
                result.GetRequiredValue(memory),
                result.GetRequiredValue(vcpus),
                result.GetRequiredValue(backing),
                result.GetRequiredValue(host),
                result.GetRequiredValue(privilege),
                result.GetValue(seed),
                result.GetValue(passes),
                result.GetRequiredValue(dirtyTracking));
            return VmProcess.RunAsync(options, process);
        });
        return command;
    }
}
