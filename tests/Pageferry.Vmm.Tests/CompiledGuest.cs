using System.Diagnostics;

namespace Pageferry.Vmm.Tests;

/// <summary>A guest as its author would build it.</summary>
internal static class CompiledGuest
{
    /// <summary>Compiles a freestanding C program into a static ELF64 file.</summary>
    /// <param name="source">The program; it begins at _start.</param>
    /// <param name="options">More for the compiler.</param>
    /// <returns>The file's path.</returns>
    public static string Build(string source, params string[] options)
    {
        string folder = Directory.CreateTempSubdirectory("pageferry-guest-").FullName;
        string program = Path.Combine(folder, "guest.elf");
        File.WriteAllText(Path.Combine(folder, "guest.c"), source);
        string[] arguments = options.Length > 0 ? options : ["-static", "-no-pie"];
        using Process gcc = Process.Start("gcc", [.. arguments, "-O1", "-w", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-Wl,-Ttext-segment=0x200000", "-o", program, Path.Combine(folder, "guest.c")]);
        gcc.WaitForExit();
        Assert.Equal(0, gcc.ExitCode);
        return program;
    }
}
