using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Pageferry.Vmm;

/// <summary>The guests that check their own memory, assembled for the address they run at.</summary>
/// <remarks>
/// Each vCPU owns a slice of the memory behind the image and goes over it pass after pass: `stamp` in order, `random` in a pseudo-random order
/// with reads and writes mixed. A page that is not as it was left is reported with its address and both words, and ends the guest with code 1.
/// After the last pass, if there is one, vCPUs wait for the others; the last one ends the guest with code 0.
/// <see cref="GuestWords"/> says what a page holds.
/// </remarks>
internal sealed class BuiltInGuest
{
    private readonly Assembler _asm = new(64);
    private readonly bool _random;
    private Label _wrongStamp;
    private Label _wrongEndStamp;
    private Label _wrongHash;
    private Label _hex;
    private Label _finishedVcpus;

    // What lives in registers while the guest runs.
    private static readonly AssemblerRegister64 s_info = r15;
    private static readonly AssemblerRegister64 s_slice = r14;
    private static readonly AssemblerRegister64 s_pages = r13;
    private static readonly AssemblerRegister64 s_pass = r12;
    private static readonly AssemblerRegister64 s_seed = rbx;
    private static readonly AssemblerRegister64 s_page = rbp;   // within the slice
    private static readonly AssemblerRegister64 s_address = r11;
    private static readonly AssemblerRegister64 s_hash = r10;
    private static readonly AssemblerRegister64 s_expected = r9;
    private static readonly AssemblerRegister64 s_mask = r8;    // of the pseudo-random order
    private static readonly AssemblerRegister64 s_steps = rdi;  // left in the pseudo-random order

    private BuiltInGuest(bool random) => _random = random;

    /// <summary>The names of the built-in guests.</summary>
    internal static IReadOnlyList<string> Names { get; } = ["stamp", "random"];

    /// <summary>Assembles a guest.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="address">Where it is going to run.</param>
    /// <returns>Its code; null if there is no such guest.</returns>
    internal static byte[]? TryAssemble(string name, ulong address) => name switch
    {
        "stamp" => new BuiltInGuest(random: false).Assemble(address),
        "random" => new BuiltInGuest(random: true).Assemble(address),
        _ => null,
    };

    private byte[] Assemble(ulong address)
    {
        _wrongStamp = _asm.CreateLabel();
        _wrongEndStamp = _asm.CreateLabel();
        _wrongHash = _asm.CreateLabel();
        _hex = _asm.CreateLabel();
        _finishedVcpus = _asm.CreateLabel();
        FindSlice();
        Passes();
        ReportWrongPage();
        Hexadecimal();
        Data();
        using var code = new MemoryStream();
        _ = _asm.Assemble(new StreamCodeWriter(code), address);
        return code.ToArray();
    }

    /// <summary>The slice of vCPU i of n is [i, i+1) n-ths of the pages behind the image.</summary>
    private void FindSlice()
    {
        _asm.mov(s_info, rdi);
        _asm.mov(s_seed, __qword_ptr[s_info + BootLayout.InfoSeed]);
        _asm.mov(rcx, __qword_ptr[s_info + BootLayout.InfoMemorySize]);
        _asm.sub(rcx, __qword_ptr[s_info + BootLayout.InfoFreeMemory]);
        _asm.shr(rcx, 12);

        // First page: pages * index / count.
        _asm.mov(rax, rcx);
        _asm.mov(esi, __dword_ptr[s_info + BootLayout.InfoVcpuIndex]);
        _asm.mul(rsi);
        _asm.mov(edi, __dword_ptr[s_info + BootLayout.InfoVcpuCount]);
        _asm.div(rdi);
        _asm.mov(s_slice, rax);

        // End: pages * (index + 1) / count.
        _asm.mov(rax, rcx);
        _asm.inc(rsi);
        _asm.mul(rsi);
        _asm.div(rdi);
        _asm.sub(rax, s_slice);
        _asm.mov(s_pages, rax);
        _asm.shl(s_slice, 12);
        _asm.add(s_slice, __qword_ptr[s_info + BootLayout.InfoFreeMemory]);
        _asm.mov(s_pass, 1);
        if (_random)
        {
            // All ones up to the slice's highest page number.
            _asm.mov(s_mask, 1);
            _asm.lea(rax, __[s_pages - 1]);
            _asm.or(rax, 1);
            _asm.bsr(rcx, rax);
            _asm.inc(rcx);
            _asm.shl(s_mask, cl);
            _asm.dec(s_mask);
        }
    }

    private void Passes()
    {
        Label pass = _asm.CreateLabel();
        Label next = _asm.CreateLabel();
        Label skip = _asm.CreateLabel();
        Label write = _asm.CreateLabel();
        Label done = _asm.CreateLabel();
        Label report = _asm.CreateLabel();
        Label finished = _asm.CreateLabel();

        _asm.Label(ref pass);
        _asm.test(s_pages, s_pages);
        _asm.je(report);
        if (_random)
        {
            _asm.lea(s_steps, __[s_mask + 1]);
            _asm.mov(s_page, s_pass);
            _asm.and(s_page, s_mask);
        }
        else
        {
            _asm.xor(s_page, s_page);
        }

        _asm.Label(ref next);
        if (_random)
        {
            _asm.cmp(s_page, s_pages);
            _asm.jae(skip);
        }

        Hash();
        _asm.cmp(s_pass, 1);
        Label check = _asm.CreateLabel();
        _asm.jne(check);
        _asm.mov(__qword_ptr[s_address + GuestWords.HashOffset], s_hash);
        _asm.jmp(write);

        _asm.Label(ref check);
        Expect();
        _asm.cmp(__qword_ptr[s_address + GuestWords.StampOffset], s_expected);
        _asm.jne(_wrongStamp);
        _asm.cmp(__qword_ptr[s_address + GuestWords.EndStampOffset], s_expected);
        _asm.jne(_wrongEndStamp);
        _asm.cmp(__qword_ptr[s_address + GuestWords.HashOffset], s_hash);
        _asm.jne(_wrongHash);
        if (_random)
        {
            _asm.mov(rax, s_page);
            _asm.xor(rax, s_pass);
            _asm.test(al, 1);
            _asm.jne(skip);
        }

        _asm.Label(ref write);
        _asm.mov(__qword_ptr[s_address + GuestWords.StampOffset], s_pass);
        _asm.mov(__qword_ptr[s_address + GuestWords.EndStampOffset], s_pass);

        _asm.Label(ref skip);
        if (_random)
        {
            _asm.imul(s_page, s_page, (int)GuestWords.OrderMultiplier);
            _asm.add(s_page, (int)GuestWords.OrderIncrement);
            _asm.and(s_page, s_mask);
            _asm.dec(s_steps);
            _asm.jne(next);
        }
        else
        {
            _asm.inc(s_page);
            _asm.cmp(s_page, s_pages);
            _asm.jb(next);
        }

        _asm.Label(ref report);

        // The first pass only writes.
        _asm.xor(eax, eax);
        _asm.cmp(s_pass, 1);
        _asm.je(done);
        _asm.mov(rax, s_pages);
        _asm.Label(ref done);
        _asm.mov(edx, GuestPort.Report);
        _asm.@out(dx, eax);
        _asm.mov(rax, __qword_ptr[s_info + BootLayout.InfoPasses]);
        _asm.cmp(s_pass, rax);
        _asm.je(finished);
        _asm.inc(s_pass);
        _asm.jmp(pass);

        _asm.Label(ref finished);
        Label wait = _asm.CreateLabel();
        _asm.mov(eax, 1);
        _asm.@lock.xadd(__dword_ptr[_finishedVcpus], eax);
        _asm.inc(eax);
        _asm.cmp(eax, __dword_ptr[s_info + BootLayout.InfoVcpuCount]);
        _asm.jne(wait);
        End(0);
        _asm.Label(ref wait);
        _asm.pause();
        _asm.jmp(wait);
    }

    /// <summary>Leaves the page's address and its hash; clobbers rax.</summary>
    private void Hash()
    {
        _asm.mov(s_address, s_page);
        _asm.shl(s_address, 12);
        _asm.add(s_address, s_slice);
        _asm.mov(s_hash, s_address);
        _asm.shr(s_hash, 12);
        _asm.add(s_hash, s_seed);
        _asm.mov(rax, GuestWords.Multiplier1);
        _asm.imul(s_hash, rax);
        _asm.mov(rax, s_hash);
        _asm.shr(rax, GuestWords.Shift);
        _asm.xor(s_hash, rax);
        _asm.mov(rax, GuestWords.Multiplier2);
        _asm.imul(s_hash, rax);
    }

    /// <summary>Leaves the stamp that the page has to hold; clobbers rax.</summary>
    private void Expect()
    {
        _asm.lea(s_expected, __[s_pass - 1]);
        if (!_random)
        {
            return;
        }

        // In the pass before, every other page was only read; before the second pass all were written.
        Label found = _asm.CreateLabel();
        _asm.cmp(s_pass, 2);
        _asm.je(found);
        _asm.mov(rax, s_page);
        _asm.xor(rax, s_expected);
        _asm.test(al, 1);
        _asm.je(found);
        _asm.dec(s_expected);
        _asm.Label(ref found);
        _asm.nop();
    }

    /// <summary>Writes one line, made on the stack so that it takes one exit, reports one wrong page and ends the guest.</summary>
    private void ReportWrongPage()
    {
        Label tell = _asm.CreateLabel();
        Wrong(ref _wrongStamp, GuestWords.StampOffset, "wrong stamp in page 0x", tell);
        Wrong(ref _wrongEndStamp, GuestWords.EndStampOffset, "wrong end stamp in page 0x", tell);
        _asm.Label(ref _wrongHash);
        _asm.mov(s_expected, s_hash);
        Label hash = _asm.CreateLabel();
        Wrong(ref hash, GuestWords.HashOffset, "wrong hash in page 0x", tell);

        // rdi: behind the line so far, which begins at rsp. The pieces of text come with their ends.
        _asm.Label(ref tell);
        _asm.mov(rdx, s_address);
        _asm.call(_hex);
        Append(": expected 0x");
        _asm.mov(rdx, s_expected);
        _asm.call(_hex);
        Append(", found 0x");
        _asm.mov(rdx, r8);
        _asm.call(_hex);
        _asm.mov(__byte_ptr[rdi], '\n');
        _asm.lea(rcx, __[rdi + 1]);
        _asm.sub(rcx, rsp);
        _asm.mov(rsi, rsp);
        _asm.mov(edx, GuestPort.Console);
        _asm.rep.outsb();
        _asm.mov(eax, unchecked((int)(GuestPort.ReportWrong | 1)));
        _asm.mov(edx, GuestPort.Report);
        _asm.@out(dx, eax);
        End(1);
    }

    private void Wrong(ref Label label, int offset, string text, Label tell)
    {
        const int LongestLine = 128;
        _asm.Label(ref label);
        _asm.mov(r8, __qword_ptr[s_address + offset]);
        _asm.sub(rsp, LongestLine);
        _asm.mov(rdi, rsp);
        Append(text);
        _asm.jmp(tell);
    }

    /// <summary>Copies a text that stands in the code to rdi, and moves rdi behind it; clobbers rsi, rcx.</summary>
    private void Append(string text)
    {
        Label bytes = _asm.CreateLabel();
        Label after = _asm.CreateLabel();
        _asm.jmp(after);
        _asm.Label(ref bytes);
        _asm.db(System.Text.Encoding.ASCII.GetBytes(text));
        _asm.Label(ref after);
        _asm.lea(rsi, __[bytes]);
        _asm.mov(ecx, text.Length);
        _asm.rep.movsb();
    }

    private void End(int code)
    {
        Label stay = _asm.CreateLabel();
        _asm.mov(eax, code);
        _asm.mov(edx, GuestPort.Exit);
        _asm.Label(ref stay);
        _asm.@out(dx, eax);
        _asm.jmp(stay);
    }

    /// <summary>Writes rdx as 16 hexadecimal digits to rdi, and moves rdi behind them; clobbers rax, rcx.</summary>
    private void Hexadecimal()
    {
        Label digit = _asm.CreateLabel();
        Label decimalDigit = _asm.CreateLabel();
        _asm.Label(ref _hex);
        _asm.mov(ecx, 16);
        _asm.Label(ref digit);
        _asm.rol(rdx, 4);
        _asm.mov(eax, edx);
        _asm.and(eax, 15);
        _asm.add(eax, '0');
        _asm.cmp(eax, '9');
        _asm.jbe(decimalDigit);
        _asm.add(eax, 'a' - '0' - 10);
        _asm.Label(ref decimalDigit);
        _asm.mov(__byte_ptr[rdi], al);
        _asm.inc(rdi);
        _asm.dec(ecx);
        _asm.jne(digit);
        _asm.ret();
    }

    /// <summary>What the vCPUs share.</summary>
    private void Data()
    {
        _asm.Label(ref _finishedVcpus);
        _asm.dd(0);
    }
}
