// A process that touches a missing page in the way its argument names, while a garbage collection runs. It prints "survived" and ends,
// or hangs for ever: who starts it sets the limit.
using System.Runtime.CompilerServices;
using Pageferry.GcHazard;
using Pageferry.Kvm;
using Pageferry.Linux;
using Pageferry.Memory;

return args switch
{
    ["managed-load"] => ManagedLoad(),
    ["read-as-guest", var backing] => Guest(backing, (memory, gpa) => memory.ReadAsGuest(gpa, new byte[8])),
    ["write-as-guest", var backing] => Guest(backing, (memory, gpa) => memory.WriteAsGuest(gpa, new byte[8])),
    ["read", var backing] => Guest(backing, (memory, gpa) => memory.Read(gpa, new byte[8])),
    ["write", var backing] => Guest(backing, (memory, gpa) => memory.Write(gpa, new byte[8])),
    ["host-view"] => Guest(nameof(GuestBacking.Memfd), (memory, gpa) => memory.HostView(gpa, 8)[0]++),
    ["read-pages", var backing] => Guest(backing, (memory, gpa) => memory.ReadPages(memory.PageAt(gpa), new byte[Page.Size])),
    ["kvm-run-for-long"] => Vcpu(WaitingVcpu.Run),
    ["kvm-run-without-transition"] => Vcpu(WaitingVcpu.RunWithoutTransition),
    ["kvm-run", var backing] => Guest(backing, RunVcpu),
    _ => Usage(),
};

static int Usage()
{
    Console.Error.WriteLine("usage: managed-load | kvm-run-for-long | kvm-run-without-transition | host-view | {read-as-guest|write-as-guest|read|write|read-pages|kvm-run} {Memfd|Anonymous}");
    return 2;
}

// What must not be done: a managed load from memory that may be missing.
static int ManagedLoad()
{
    using MappedRegion region = MappedRegion.MapAnonymous(Page.Size);
    using Userfaultfd userfaultfd = Userfaultfd.Open(UserfaultfdFeatures.None);
    _ = userfaultfd.Register(region.Address, region.Length, UserfaultfdModes.Missing);
    using var collection = new CollectionDuringFault();
    var handler = new Thread(() =>
    {
        new Poll(userfaultfd.Descriptor).Wait(Timeout.Infinite);
        collection.Begin();
        _ = userfaultfd.ZeroPage(region.Address, region.Length, UserfaultfdCopyFlags.None, out _);
    });
    handler.Start();
    _ = Load(region);
    return Survived();
}

[MethodImpl(MethodImplOptions.NoInlining)]
static byte Load(MappedRegion region) => region.Span(0, 1)[0];

// What the library offers: each of these may wait for a page.
static int Guest(string backing, Action<GuestMemory, ulong> touch)
{
    using var memory = GuestMemory.Create(16 * Page.Size, Enum.Parse<GuestBacking>(backing));
    using var engine = new FaultEngine(memory);
    using var collection = new CollectionDuringFault();
    var source = new LateSource(collection);
    engine.Start(source);
    source.AnswerThrough(engine);

    // Paths that don't wait for a page run beside a thread that does.
    var waiting = new Thread(() => memory.ReadAsGuest(0, new byte[1]));
    waiting.Start();
    touch(memory, 8 * Page.Size);
    waiting.Join();
    return Survived();
}

// A vCPU whose first instruction is on a missing page.
static void RunVcpu(GuestMemory memory, ulong gpa)
{
    using Kvm kvm = Kvm.Open();
    using VirtualMachine machine = kvm.CreateVirtualMachine();
    using VirtualCpu vcpu = machine.CreateVcpu(0);
    machine.SetMemoryRegion(0, 0, memory.Size, memory.GuestViewAddress(0));
    VcpuSystemRegisters system = vcpu.SystemRegisters;
    system.Cs = system.Cs with { Base = 0, Selector = 0 };
    vcpu.SystemRegisters = system;
    vcpu.Registers = new VcpuRegisters { Rip = gpa, Rflags = 2 };
    VcpuExit exit = vcpu.Run();
    if (exit.Kind != VcpuExitKind.Halt)
    {
        throw new InvalidOperationException($"The vCPU stopped for another reason: {exit}.");
    }
}

static int Vcpu(Action run)
{
    run();
    return Survived();
}

static int Survived()
{
    Console.WriteLine("survived");
    return 0;
}
