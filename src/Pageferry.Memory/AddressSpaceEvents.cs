using Pageferry.Linux;

namespace Pageferry.Memory;

/// <summary>
/// Acts on what a userfaultfd tells beside faults: memory that is removed, unmapped, moved or forked. As long as one of these is unread the kernel places
/// nothing, so what is applied here, with all placing locks held, is what the address space is when the next page is placed.
/// </summary>
internal sealed class AddressSpaceEvents(FaultEngine engine)
{
    private readonly Queue<(FaultEngine Engine, FileDescriptor Descriptor)> _children = new();
    private bool _hasChanged;

    /// <summary>Acts on an event, unless it is a fault; with all placing locks held.</summary>
    internal void Apply(UserfaultfdEvent read)
    {
        switch (read.Kind)
        {
            case UserfaultfdEventKind.Remove:
                Remove(read.Start, read.End);
                break;

            case UserfaultfdEventKind.Unmap:
                Unmap(read.Start, read.End);
                _hasChanged = true;
                break;

            case UserfaultfdEventKind.Remap:
                engine.Memory.MoveForeign(read.RemapFrom, read.RemapTo, read.RemapLength);

                // Who waited for a page where it was has to find out that it is not there.
                engine.Placer.Userfaultfd!.Wake(read.RemapFrom, read.RemapLength);
                _hasChanged = true;
                break;

            case UserfaultfdEventKind.Fork:
                Fork(new FileDescriptor(read.ForkDescriptor));
                _hasChanged = true;
                break;

            case UserfaultfdEventKind.PageFault:
                break;

            default:
                throw new NotSupportedException($"The kernel tells of a userfaultfd event 0x{(int)read.Kind:x} that is not known: what it does to the memory can't be followed.");
        }
    }

    /// <summary>Ends what was read at once: hands over the engines of processes that were forked; with no lock held. What is recorded of the memory is true again then.</summary>
    /// <param name="events">How many messages were read.</param>
    /// <param name="isTakenOver">Whether an engine that died had read them, and its children may be among those that are kept.</param>
    internal void Complete(int events, bool isTakenOver = false)
    {
        while (_children.TryDequeue(out (FaultEngine Engine, FileDescriptor Descriptor) child))
        {
            engine.HandOver(child.Engine);
            child.Descriptor.DangerousRelease();
        }

        engine.Memory.Commit(events, _hasChanged || isTakenOver);
        _hasChanged = false;
    }

    private void Unmap(ulong start, ulong end)
    {
        // A move is told by two messages, of which the second comes when the first was read. Another thread may have moved other pages there meanwhile, and they are not unmapped.
        if (!engine.Memory.IsEndOfMove(start, end))
        {
            Remove(start, end);
            engine.Memory.UnmapForeign(start, end);
        }
    }

    private void Fork(FileDescriptor descriptor)
    {
        // Until somebody has taken the child. Where that fails it is open as long as this process is, whoever forgets it: closed, it would hand the child zeros.
        bool isHeld = false;
        descriptor.DangerousAddRef(ref isHeld);
        _children.Enqueue((engine.CreateChild(Userfaultfd.FromDescriptor(descriptor)), descriptor));
    }

    private void Remove(ulong address, ulong end)
    {
        while (engine.Memory.TryNextInGuestView(ref address, end, out ulong page, out ulong count))
        {
            engine.ApplyRemoval(page, page + count);
        }
    }
}
