using System.Diagnostics;

namespace Pageferry.Linux.Tests;

/// <summary>The process of victim.c: its memory is served here, through a userfaultfd that it sent.</summary>
internal sealed class Victim : IDisposable
{
    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("pageferry-victim-");
    private readonly Process _process;
    private readonly UnixSocket _socket;

    internal Victim(bool isShared)
    {
        string program = Path.Combine(_directory.FullName, "victim");
        string path = Path.Combine(_directory.FullName, "socket");
        using (var compiler = Process.Start("gcc", ["-Wall", "-Werror", "-o", program, Path.Combine(AppContext.BaseDirectory, "victim.c")]))
        {
            compiler.WaitForExit();
            Assert.Equal(0, compiler.ExitCode);
        }

        using var listening = UnixSocket.Listen(path, UnixSocketType.Stream);
        var poll = new Poll(listening.Descriptor);
        _process = Process.Start(program, [path, isShared ? "shared" : "private"]);
        Assert.Equal(1, poll.Wait(10_000));
        _socket = listening.Accept();
        Assert.Equal(_process.Id, _socket.GetPeer().ProcessId);

        var address = new byte[sizeof(ulong)];
        var descriptors = new FileDescriptor?[1];
        Assert.Equal(address.Length, _socket.Receive(address, descriptors, out int count));
        Assert.Equal(1, count);
        Memory = BitConverter.ToUInt64(address);
        Listener = new FaultListener(Userfaultfd.FromDescriptor(descriptors[0]!));
    }

    /// <summary>The address of its memory: 8 pages.</summary>
    internal ulong Memory { get; }

    internal FaultListener Listener { get; }

    internal int ProcessId => _process.Id;

    /// <summary>Has it do something with a page; see victim.c.</summary>
    internal Waiter<(char Kind, byte Value)> Do(char command, int page)
    {
        _socket.Send([(byte)command, (byte)page]);
        return new(() =>
        {
            var answer = new byte[2];
            return _socket.Receive(answer, [], out _) == answer.Length ? ((char)answer[0], answer[1]) : throw new EndOfStreamException();
        });
    }

    /// <summary>Ends it and waits until its memory is gone.</summary>
    internal void End()
    {
        _process.Kill();
        Assert.True(_process.WaitForExit(10_000));
    }

    public void Dispose()
    {
        End();
        Listener.Dispose();
        _socket.Dispose();
        _process.Dispose();
        _directory.Delete(recursive: true);
    }
}
