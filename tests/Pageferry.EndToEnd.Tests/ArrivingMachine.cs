using Pageferry.Memory;
using Pageferry.Migration;
using Pageferry.Vmm;

namespace Pageferry.EndToEnd.Tests;

/// <summary>A machine of this process that a guest arrives on.</summary>
internal sealed class ArrivingMachine(IMachine machine) : IArrivingGuest
{
    internal IMachine Machine => machine;

    public FaultEngine Engine => machine.Engine!;

    public void LoadState(ReadOnlySpan<byte> state) => machine.LoadState(state);

    public void Start(bool isPaused, Action executed)
    {
        machine.FirstInstruction += executed;
        machine.Start();
    }

    public void Stop() => machine.Pause();

    public byte[] SaveState() => machine.SaveState();

    public void Dispose() => machine.Dispose();
}
