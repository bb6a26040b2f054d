using System.CommandLine;
using System.Text.Json;

namespace Pageferry.Cli;

/// <summary><c>pageferry doctor</c>: what this machine can do, and what to do where it can't.</summary>
internal static class DoctorCommand
{
    private const string Indent = "    ";

    /// <summary>Makes the command.</summary>
    /// <param name="examples">Where to put its examples.</param>
    /// <returns>The command.</returns>
    internal static Command Create(Dictionary<Command, string[]> examples)
    {
        Option<bool> json = CommonOptions.Json();
        var command = new Command("doctor", "Show what this machine can do, and what to do where it can't.") { json };
        examples[command] = ["pageferry doctor", "pageferry doctor --json"];
        command.SetAction(result =>
        {
            DoctorReport report = Examination.Examine();
            Console.Out.WriteLine(result.GetValue(json) ? JsonSerializer.Serialize(report, CliJson.Indented.DoctorReport) : Text(report));
            return report.Ok ? ExitCode.Done : ExitCode.Failure;
        });
        return command;
    }

    private static string Text(DoctorReport report)
    {
        KvmExamination kvm = report.Kvm;
        MemoryExamination memory = report.Memory;
        var lines = new List<string>
        {
            Line("kernel", $"{report.Kernel} on {report.Architecture}"),
            Line("machine", $"{report.Cores} cores, {MemorySize.FormatMeasured(report.MemoryAvailableBytes)} of {MemorySize.FormatMeasured(report.MemoryBytes)} free"),
            Line("user", $"{report.User}"),
            Line("kvm", kvm.Usable ? $"{kvm.Kind}{(kvm.Nested ? ", in a virtual machine" : string.Empty)}, up to {kvm.MaxVcpus} vCPUs:" : $"not usable"),
        };
        lines.AddRange(Wrap(string.Join(", ", kvm.Capabilities)));
        lines.Add(Line("userfaultfd", report.Userfaultfd.Usable ? $"usable, {report.Userfaultfd.Features.Count} features:" : $"not usable"));
        lines.AddRange(Wrap(string.Join(", ", report.Userfaultfd.Features)));
        lines.Add(Line("memfd", memory.Memfd ? $"usable" : $"not usable"));
        lines.Add(Line("huge pages", $"{memory.HugePagesFree} of {memory.HugePages} reserved 2 MiB pages free"));
        lines.Add(Line("transparent", $"anonymous memory: {memory.ThpAnonymous}; shared memory: {memory.ThpShmem}"));
        lines.Add(string.Empty);
        foreach (Capability capability in report.Capabilities)
        {
            lines.Add($"{(capability.Available ? "yes" : "no "),-4}{capability.Name}");
            lines.AddRange(Wrap(capability.Reason ?? string.Empty));
        }

        return string.Join(Environment.NewLine, lines);
    }

    private static string Line(string label, string value) => label.PadRight(14) + value;

    private static IEnumerable<string> Wrap(string text) => TextWrap.Lines(text, Indent, Indent);
}
