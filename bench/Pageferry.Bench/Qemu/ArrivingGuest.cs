using Pageferry.Memory;
using Pageferry.Migration;
using Pageferry.Vmm;

namespace Pageferry.Bench;

/// <summary>The machine of a destination.</summary>
internal sealed class ArrivingGuest : IArrivingGuest
{
    private ArrivingGuest(KvmMachine machine) => Machine = machine;

    /// <summary>The machine.</summary>
    public KvmMachine Machine { get; }

    public FaultEngine Engine => Machine.Engine!;

    /// <summary>Makes a machine with the source's memory and one vCPU.</summary>
    public static ArrivingGuest Prepare(MigrationLayout layout)
    {
        var machine = KvmMachine.Create(GuestMemory.Create(layout.Regions, layout.Backing), vcpuCount: 1);
        machine.Engine = new FaultEngine(machine.Memory);
        machine.ConsoleLine += Console.WriteLine;
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
