using System.Diagnostics;
using System.Runtime.InteropServices;
using Pageferry.Linux;

namespace Pageferry.Memory.Tests;

/// <summary>The process of foreign.c, and those that it forks.</summary>
internal sealed class ForeignProcess : IDisposable
{
    private const int Patience = 30_000;

    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("pageferry-foreign-");
    private readonly UnixSocket _listening;
    private readonly UnixSocket _peer;
    private readonly Process _process;

    internal ForeignProcess(ulong pages)
    {
        string program = Path.Combine(_folder.FullName, "foreign");
        string path = Path.Combine(_folder.FullName, "socket");
        using (var compiler = Process.Start("gcc", ["-Wall", "-Werror", "-pthread", "-o", program, Path.Combine(AppContext.BaseDirectory, "foreign.c")]))
        {
            compiler.WaitForExit();
            Assert.Equal(0, compiler.ExitCode);
        }

        _listening = UnixSocket.Listen(path, UnixSocketType.Stream);
        _process = Process.Start(program, [path, $"{pages}"]);
        _peer = Accept();
        var address = new byte[sizeof(ulong)];
        var descriptors = new FileDescriptor?[1];
        Assert.Equal(address.Length, _peer.Receive(address, descriptors, out int count));
        Assert.Equal(1, count);
        Address = BitConverter.ToUInt64(address);
        Userfaultfd = Userfaultfd.FromDescriptor(descriptors[0]!);
    }

    internal int Pid => _process.Id;

    /// <summary>Where its memory begins: twice as many pages as it was told.</summary>
    internal ulong Address { get; }

    internal Userfaultfd Userfaultfd { get; }

    /// <summary>Has it do something; see foreign.c.</summary>
    internal ulong Do(char letter, ulong first, ulong count = 1) => Do(_peer, letter, first, count);

    /// <summary>Has it fork.</summary>
    /// <returns>What has the child do something.</returns>
    internal Func<char, ulong, ulong, ulong> Fork()
    {
        _ = Do('f', 0, 0);
        UnixSocket child = Accept();
        return (letter, first, count) => Do(child, letter, first, count);
    }

    internal void Kill()
    {
        _process.Kill();
        Assert.True(_process.WaitForExit(Patience));
    }

    public void Dispose()
    {
        _process.Kill();
        _process.WaitForExit();
        _process.Dispose();
        _peer.Dispose();
        _listening.Dispose();
        _folder.Delete(recursive: true);
    }

    private static ulong Do(UnixSocket peer, char letter, ulong first, ulong count)
    {
        peer.Send(MemoryMarshal.AsBytes<ulong>([letter, first, count]));
        Assert.Equal(1, new Poll(peer.Descriptor).Wait(Patience));
        var answer = new byte[sizeof(ulong)];
        Assert.Equal(answer.Length, peer.Receive(answer, [], out _));
        return BitConverter.ToUInt64(answer);
    }

    private UnixSocket Accept()
    {
        Assert.Equal(1, new Poll(_listening.Descriptor).Wait(Patience));
        return _listening.Accept();
    }
}
