using Pageferry.Memory;

namespace Pageferry.Vmm.Tests.Tracking;

public sealed class ScanDirtyTrackerTests(HugePages hugePages) : DirtyTrackerTests(hugePages)
{
    protected override IMachine Create(MachineConfiguration configuration, string guest) => ThreadMachine.Create(configuration, guest);

    protected override PageWriter CreateWriter(GuestMemory memory) => PageWriter.OfThreads(memory);
}
