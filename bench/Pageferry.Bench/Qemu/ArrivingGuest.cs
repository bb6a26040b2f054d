using Pageferry.Memory;
using Pageferry.Migration;
using Pageferry.Vmm;

namespace Pageferry.Bench;

/// <summary>The machine of a destination.</summary>
internal sealed class ArrivingGuest : IArrivingGuest
{
    private ArrivingGuest(IMachine machine) => Machine = machine;

    /// <summary>The machine.</summary>
    public IMachine Machine { get; }

    public FaultEngine Engine => Machine.Engine!;

    /// <summary>Makes a machine with the source's memory and one vCPU.</summary>
    public static ArrivingGuest Prepare(MigrationLayout layout)
    {
        GuestMemory memory = GuestMemory.Create(layout.Regions, layout.Backing);
        IMachine machine = layout.MachineKind == $"{MachineHost.Threads}" ? ThreadMachine.Create(memory, vcpuCount: 1) : KvmMachine.Create(memory, vcpuCount: 1);
        machine.Engine = new FaultEngine(machine.Memory);
        machine.ConsoleLine += Console.WriteLine;
        if (machine.Host == MachineHost.Threads)
        {
            machine.FirstInstruction += () => Console.WriteLine(BenchGuest.Tick);
        }

        return new ArrivingGuest(machine);
    }

    public void LoadState(ReadOnlySpan<byte> state) => Machine.LoadState(state);

    public void Start(bool isPaused, Action executed)
    {
        Machine.FirstInstruction += executed;
        if (!isPaused)
        {
            Machine.Start();
        }
    }

    public void Stop() => Machine.Pause();

    public byte[] SaveState() => Machine.SaveState();

    public void Dispose() => Machine.Dispose();
}
