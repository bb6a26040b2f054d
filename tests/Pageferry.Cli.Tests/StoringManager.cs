using System.Collections.Concurrent;
using System.Net.Sockets;
using System.Text;
using Pageferry.Linux;

namespace Pageferry.Cli.Tests;

/// <summary>A service manager's side of $NOTIFY_SOCKET, with a store of file descriptors: what systemd does with what it is told, on a real socket.</summary>
internal sealed class StoringManager : IDisposable
{
    private readonly Socket _socket = new(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
    private readonly List<(string Name, FileDescriptor Descriptor)> _stored = [];
    private readonly int _most;
    private readonly EventFd _end = new();
    private readonly Thread _thread;

    /// <param name="address">A path, or a name of the abstract namespace behind an '@'.</param>
    /// <param name="most">FileDescriptorStoreMax=.</param>
    public StoringManager(string address, int most = 64)
    {
        Address = address;
        _most = most;
        _socket.Bind(new UnixDomainSocketEndPoint(address[0] == '@' ? $"\0{address[1..]}" : address));
        _thread = new Thread(Run);
        _thread.Start();
    }

    public string Address { get; }

    /// <summary>What it was told, but for descriptors.</summary>
    public ConcurrentQueue<string> Told { get; } = [];

    public string[] Names
    {
        get
        {
            lock (_stored)
            {
                return [.. _stored.Select(one => one.Name).Order(StringComparer.Ordinal)];
            }
        }
    }

    /// <summary>Whether it was told something.</summary>
    public bool HasHeard(string state) => Told.Contains(state, StringComparer.Ordinal);

    /// <summary>What the next process is started with, in no order that it could count on.</summary>
    public List<(string Name, FileDescriptor Descriptor)> Hand()
    {
        // What was sent last may be unread.
        Assert.True(SpinWait.SpinUntil(() => _socket.Available == 0 && !Names.Contains("pageferry-canary", StringComparer.Ordinal), TimeSpan.FromSeconds(60)));
        lock (_stored)
        {
            return [.. Enumerable.Reverse(_stored).Select(one => (one.Name, one.Descriptor.Duplicate()))];
        }
    }

    public void Dispose()
    {
        _end.Signal();
        _thread.Join();
        _end.Dispose();
        _socket.Dispose();
        _stored.ForEach(one => one.Descriptor.Dispose());
    }

    private void Run()
    {
        var socket = UnixSocket.FromDescriptor(new FileDescriptor((int)_socket.Handle, ownsHandle: false));
        var poll = new Poll(_end.Descriptor, socket.Descriptor);
        var bytes = new byte[4096];
        var descriptors = new FileDescriptor?[8];
        while (true)
        {
            _ = poll.Wait(-1);
            if (poll.IsReadable(0))
            {
                return;
            }

            string[] told = Encoding.ASCII.GetString(bytes, 0, socket.Receive(bytes, descriptors, out int count)).Split('\n');
            string? name = told.FirstOrDefault(line => line.StartsWith("FDNAME=", StringComparison.Ordinal))?["FDNAME=".Length..];
            foreach (FileDescriptor descriptor in descriptors.AsSpan(0, count)!)
            {
                lock (_stored)
                {
                    if (told.Contains("FDSTORE=1", StringComparer.Ordinal) && told.Contains("FDPOLL=0", StringComparer.Ordinal) && name is not null && _stored.Count < _most)
                    {
                        _stored.Add((name, descriptor));
                    }
                    else
                    {
                        // Of a barrier too, which is closed when its turn has come.
                        descriptor.Dispose();
                    }
                }
            }

            lock (_stored)
            {
                if (told.Contains("FDSTOREREMOVE=1", StringComparer.Ordinal))
                {
                    foreach ((string Name, FileDescriptor Descriptor) one in _stored.Where(one => one.Name == name).ToArray())
                    {
                        _ = _stored.Remove(one);
                        one.Descriptor.Dispose();
                    }
                }
            }

            Told.Enqueue(string.Join(' ', told));
        }
    }
}
