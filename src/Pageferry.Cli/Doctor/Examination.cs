using System.Runtime.InteropServices;
using Pageferry.Linux;
using Pageferry.Memory;

namespace Pageferry.Cli;

/// <summary>Examines the machine and draws the conclusions.</summary>
internal static class Examination
{
    /// <summary>Examines this machine.</summary>
    /// <returns>What was found.</returns>
    internal static DoctorReport Examine()
    {
        (ulong total, ulong available) = MemoryInfo();
        KvmExamination kvm = KvmExamination.Examine();
        string? kvmRefusal = kvm.Error;
        string? demoRefusal = MemoryExamination.WhyNot(GuestBacking.Memfd, DeliveryWord.Choose(DeliveryWord.Auto));
        return new DoctorReport
        {
            Ok = demoRefusal is null,
            Kernel = File.ReadAllText("/proc/sys/kernel/osrelease").Trim(),
            Architecture = RuntimeInformation.ProcessArchitecture.ToString().ToLowerInvariant(),
            Cores = Environment.ProcessorCount,
            MemoryBytes = total,
            MemoryAvailableBytes = available,
            User = UserName(),
            Kvm = kvm,
            Userfaultfd = UserfaultfdExamination.Examine(),
            Memory = MemoryExamination.Examine(),
            Capabilities =
            [
                Conclude("run guests under KVM", kvmRefusal),
                Conclude("run the built-in guests as threads", null),
                Conclude("receive a guest into a memfd, userfaults by the queue", MemoryExamination.WhyNot(GuestBacking.Memfd, FaultDelivery.Queue)),
                Conclude("receive a guest into a memfd, userfaults as exits", MemoryExamination.WhyNot(GuestBacking.Memfd, FaultDelivery.Exit)),
                Conclude("receive a guest into anonymous memory", MemoryExamination.WhyNot(GuestBacking.Anonymous, FaultDelivery.Queue)),
                Conclude("track writes by KVM's dirty log", kvmRefusal),
                Conclude("track writes by KVM's dirty ring", KvmExamination.WhyNoDirtyRing()),
                Conclude("track the host's own writes, which pre-copy needs", UserfaultfdExamination.WhyNot(UserfaultfdFeatures.WriteProtectAsync)),
                Conclude("receive a guest into a guest_memfd", MemoryExamination.WhyNot(GuestBacking.GuestMemfd, FaultDelivery.Queue)),
                Conclude("userfault exits made by KVM itself (KVM_MEM_USERFAULT)", KvmExamination.WhyNotUserfault()),
                Conclude("demo", demoRefusal),
            ],
        };
    }

    private static Capability Conclude(string name, string? refusal) => new(name, refusal is null, refusal);

    // Containers and rescue systems may have no /etc/passwd to look the name up in.
    private static string UserName()
    {
        try
        {
            return Environment.UserName;
        }
        catch (IOException)
        {
            // "Uid:	0	0	0	0": the real and the effective one first.
            string ids = File.ReadLines("/proc/self/status").First(line => line.StartsWith("Uid:", StringComparison.Ordinal));
            return $"uid {ids.Split('\t')[2]}";
        }
    }

    /// <summary>This machine's memory in bytes, and what of it can be had without swapping.</summary>
    internal static (ulong Total, ulong Available) MemoryInfo()
    {
        ulong total = 0, available = 0;
        foreach (string line in File.ReadLines("/proc/meminfo"))
        {
            // "MemTotal:       24682416 kB"
            string[] words = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
            if (words.Length >= 2 && ulong.TryParse(words[1], out ulong kibibytes))
            {
                total = words[0] is "MemTotal:" ? kibibytes << 10 : total;
                available = words[0] is "MemAvailable:" ? kibibytes << 10 : available;
            }
        }

        return (total, available);
    }
}
