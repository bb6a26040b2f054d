using Iced.Intel;

namespace Pageferry.Vmm;

/// <summary>Gathers and scatters: an address per element of a vector, for the elements that the mask still has.</summary>
internal static class VectorAddresses
{
    /// <summary>Lists the elements' pages.</summary>
    /// <param name="memory">The vCPU's memory.</param>
    /// <param name="instruction">The gather or scatter.</param>
    /// <param name="used">Its memory operand, with the vector of indices.</param>
    /// <param name="access">What it does there.</param>
    /// <param name="state">The vector registers.</param>
    internal static void Touch(ref LinearMemory memory, in Instruction instruction, in UsedMemory used, FaultAccess access, ExtendedState state)
    {
        int indexBytes = used.VsibSize;
        int elementBytes = used.MemorySize.GetSize();
        Register mask = instruction.OpMask;
        Register vectorMask = mask == Register.None && instruction.OpCount == 3 ? instruction.Op2Register : Register.None;
        Register data = instruction.Op0Kind == OpKind.Register ? instruction.Op0Register : instruction.Op1Register;
        int elements = used.Index.GetSize() / indexBytes;
        if (data.IsVectorRegister())
        {
            elements = Math.Min(elements, data.GetSize() / elementBytes);
        }

        ulong bits = mask == Register.None ? ulong.MaxValue : state.Mask(mask);
        for (int i = 0; i < elements; i++)
        {
            // An element is done once its part of the mask is cleared.
            bool isLeft = vectorMask == Register.None ? (bits >> i & 1) != 0 : state.Element(vectorMask, i, elementBytes) < 0;
            if (isLeft)
            {
                long index = state.Element(used.Index, i, indexBytes);
                memory.Touch(Operand.Address(memory, used, index), (ulong)elementBytes, access);
            }
        }
    }
}
