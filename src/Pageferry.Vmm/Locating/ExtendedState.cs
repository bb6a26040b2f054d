using System.Buffers.Binary;
using Iced.Intel;
using Pageferry.Kvm;

namespace Pageferry.Vmm;

/// <summary>A vCPU's vector and mask registers, read from the kernel only if an instruction needs them.</summary>
internal sealed class ExtendedState
{
    private const int LegacyVectors = 160;
    private const int VectorBytes = 16;

    private byte[] _area = [];
    private VirtualCpu? _unread;
    private VirtualCpu? _vcpu;
    private ulong _xcr0;

    /// <summary>The state of a vCPU from now on; nothing is read yet.</summary>
    internal void Of(VirtualCpu vcpu)
    {
        (_vcpu, _unread) = (vcpu, vcpu);
        if (_area.Length < vcpu.XsaveBytes)
        {
            _area = new byte[vcpu.XsaveBytes];
        }
    }

    /// <summary>A state that is given.</summary>
    /// <param name="xcr0">What the guest may use.</param>
    /// <param name="area">An XSAVE area of the standard format.</param>
    internal void Of(ulong xcr0, byte[] area) => (_vcpu, _unread, _xcr0, _area) = (null, null, xcr0, area);

    /// <summary>The state components that the guest may use.</summary>
    internal ulong Xcr0 => _vcpu?.Xcr0 ?? _xcr0;

    /// <summary>An element of a vector register, sign-extended.</summary>
    /// <param name="register">XMM, YMM or ZMM.</param>
    /// <param name="index">Which element.</param>
    /// <param name="size">Its bytes: 4 or 8.</param>
    internal long Element(Register register, int index, int size)
    {
        ReadOnlySpan<byte> at = Read()[Place(register.GetNumber(), index * size)..];
        return size == sizeof(int) ? BinaryPrimitives.ReadInt32LittleEndian(at) : BinaryPrimitives.ReadInt64LittleEndian(at);
    }

    /// <summary>A mask register's bits.</summary>
    internal ulong Mask(Register register) =>
        BinaryPrimitives.ReadUInt64LittleEndian(Read()[(XsaveLayout.Offset(XsaveLayout.Masks) + (register.GetNumber() * sizeof(ulong)))..]);

    private static int Place(int number, int offset) => (number, offset) switch
    {
        ( >= 16, _) => XsaveLayout.Offset(XsaveLayout.UpperVectors) + ((number - 16) * VectorBytes * 4) + offset,
        (_, < VectorBytes) => LegacyVectors + (number * VectorBytes) + offset,
        (_, < VectorBytes * 2) => XsaveLayout.Offset(XsaveLayout.Avx) + (number * VectorBytes) + offset - VectorBytes,
        _ => XsaveLayout.Offset(XsaveLayout.UpperHalves) + (number * VectorBytes * 2) + offset - (VectorBytes * 2),
    };

    private ReadOnlySpan<byte> Read()
    {
        _unread?.ReadXsave(_area);
        _unread = null;
        return _area;
    }
}
