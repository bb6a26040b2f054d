using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Pageferry.Vmm;

/// <summary>The guests that check their own memory, assembled for the address they run at.</summary>
/// <remarks>
/// Each vCPU owns a slice of the memory behind the image and goes over it pass after pass: `stamp` in order, `random` in a pseudo-random order
/// with reads and writes mixed. A page that is not as it was left is reported with its address and both words, and ends the guest with code 1.
/// <see cref="GuestWords"/> says what a page holds.
/// </remarks>
internal sealed class BuiltInGuest
{
    private readonly Assembler _asm = new(64);
    private readonly bool _random;
    private Label _wrongStamp;
    private Label _wrongHash;
    private Label _text;
    private Label _hex;

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
        _wrongHash = _asm.CreateLabel();
        _text = _asm.CreateLabel();
        _hex = _asm.CreateLabel();
        FindSlice();
        Passes();
        Report();
        Helpers();
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
        End(0);
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

    private void Report()
    {
        Label tell = _asm.CreateLabel();
        Label stamp = _asm.CreateLabel();
        Label hash = _asm.CreateLabel();
        Label expected = _asm.CreateLabel();
        Label found = _asm.CreateLabel();
        Label end = _asm.CreateLabel();

        _asm.Label(ref _wrongStamp);
        _asm.lea(rsi, __[stamp]);
        _asm.mov(r8, __qword_ptr[s_address + GuestWords.StampOffset]);
        _asm.jmp(tell);
        _asm.Label(ref _wrongHash);
        _asm.lea(rsi, __[hash]);
        _asm.mov(s_expected, s_hash);
        _asm.mov(r8, __qword_ptr[s_address + GuestWords.HashOffset]);

        _asm.Label(ref tell);
        _asm.call(_text);
        _asm.mov(rdi, s_address);
        _asm.call(_hex);
        _asm.lea(rsi, __[expected]);
        _asm.call(_text);
        _asm.mov(rdi, s_expected);
        _asm.call(_hex);
        _asm.lea(rsi, __[found]);
        _asm.call(_text);
        _asm.mov(rdi, r8);
        _asm.call(_hex);
        _asm.lea(rsi, __[end]);
        _asm.call(_text);
        End(1);

        Text(ref stamp, "wrong stamp in page 0x");
        Text(ref hash, "wrong hash in page 0x");
        Text(ref expected, ": expected 0x");
        Text(ref found, ", found 0x");
        Text(ref end, "\n");
    }

    private void Text(ref Label label, string text)
    {
        _asm.Label(ref label);
        _asm.db([.. System.Text.Encoding.ASCII.GetBytes(text), 0]);
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

    private void Helpers()
    {
        // Writes the text at rsi, up to its 0, to the console; clobbers al, dx.
        Label character = _asm.CreateLabel();
        Label ended = _asm.CreateLabel();
        _asm.Label(ref _text);
        _asm.mov(edx, GuestPort.Console);
        _asm.Label(ref character);
        _asm.mov(al, __byte_ptr[rsi]);
        _asm.test(al, al);
        _asm.je(ended);
        _asm.@out(dx, al);
        _asm.inc(rsi);
        _asm.jmp(character);
        _asm.Label(ref ended);
        _asm.ret();

        // Writes rdi as 16 hexadecimal digits; clobbers al, rcx, dx.
        Label digit = _asm.CreateLabel();
        Label decimalDigit = _asm.CreateLabel();
        _asm.Label(ref _hex);
        _asm.mov(ecx, 16);
        _asm.mov(edx, GuestPort.Console);
        _asm.Label(ref digit);
        _asm.rol(rdi, 4);
        _asm.mov(eax, edi);
        _asm.and(eax, 15);
        _asm.add(eax, '0');
        _asm.cmp(eax, '9');
        _asm.jbe(decimalDigit);
        _asm.add(eax, 'a' - '0' - 10);
        _asm.Label(ref decimalDigit);
        _asm.@out(dx, al);
        _asm.dec(ecx);
        _asm.jne(digit);
        _asm.ret();
    }
}
