using Iced.Intel;
using Pageferry.Memory;

namespace Pageferry.Vmm;

/// <summary>Fetches and decodes the instruction at RIP, touching no more pages than the processor would.</summary>
internal sealed class InstructionFetch
{
    private readonly FetchedBytes _bytes = new();
    private readonly Decoder _decoder16;
    private readonly Decoder _decoder32;
    private readonly Decoder _decoder64;

    internal InstructionFetch()
    {
        _decoder16 = Decoder.Create(16, _bytes);
        _decoder32 = Decoder.Create(32, _bytes);
        _decoder64 = Decoder.Create(64, _bytes);
    }

    /// <summary>Lists the instruction's pages, and decodes it.</summary>
    /// <param name="memory">The vCPU's memory.</param>
    /// <param name="instruction">The instruction.</param>
    /// <returns>False if a page of it can't be read, or it is none: then its own pages are all that it touches.</returns>
    internal bool TryFetch(ref LinearMemory memory, out Instruction instruction)
    {
        (Decoder decoder, ulong mask) = memory.Mode.Bitness switch
        {
            64 => (_decoder64, ulong.MaxValue),
            32 => (_decoder32, uint.MaxValue),
            _ => (_decoder16, ushort.MaxValue),
        };
        ulong offset = memory.Context.Registers.Rip & mask;
        ulong address = RegisterValue.Linear(memory.Context.SystemRegisters, memory.Mode.Bitness, Register.CS, offset);
        instruction = default;

        // The page behind is fetched from only if the instruction goes on there.
        int inPage = (int)Math.Min(FetchedBytes.Most, Page.Size - (address & (Page.Size - 1)));
        if (!memory.TryRead(address, _bytes.Take(inPage), FaultAccess.Execute))
        {
            return false;
        }

        Decode(decoder, offset, out instruction);
        if (decoder.LastError == DecoderError.NoMoreBytes && inPage < FetchedBytes.Most)
        {
            if (!memory.TryRead(address + (ulong)inPage, _bytes.Take(FetchedBytes.Most)[inPage..], FaultAccess.Execute))
            {
                return false;
            }

            Decode(decoder, offset, out instruction);
        }

        return decoder.LastError == DecoderError.None;
    }

    private void Decode(Decoder decoder, ulong offset, out Instruction instruction)
    {
        _bytes.Rewind();
        decoder.IP = offset;
        decoder.Decode(out instruction);
    }
}
