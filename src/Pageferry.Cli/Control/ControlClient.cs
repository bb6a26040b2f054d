using System.Net.Sockets;
using System.Runtime.CompilerServices;
using System.Text.Json;

namespace Pageferry.Cli;

/// <summary>Asks the process of a guest, over its control socket.</summary>
internal sealed class ControlClient : IDisposable
{
    private readonly string _path;
    private readonly NetworkStream _stream;
    private readonly StreamReader _reader;

    private ControlClient(string path, Socket socket)
    {
        _path = path;
        _stream = new NetworkStream(socket, ownsSocket: true);
        _reader = new StreamReader(_stream);
    }

    /// <summary>Connects.</summary>
    /// <param name="path">The control socket's path.</param>
    /// <returns>The client, which the caller disposes.</returns>
    /// <exception cref="CommandException">No guest listens there.</exception>
    internal static ControlClient Connect(string path)
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            socket.Connect(new UnixDomainSocketEndPoint(path));
            return new ControlClient(path, socket);
        }
        catch (SocketException e)
        {
            socket.Dispose();
            throw new CommandException($"Could not reach a guest at control socket {path}: {(Path.Exists(path) ? e.Message : "there is none")}. Give the path that 'pageferry vm run' or 'vm receive' was started with, as the same user.");
        }
    }

    /// <summary>Sends a request and reads its answers to the last.</summary>
    /// <param name="request">What to do.</param>
    /// <param name="cancellation">Ends the waiting, not the request.</param>
    /// <returns>The answers; the last one is never <see cref="ControlAnswer.Error"/>.</returns>
    /// <exception cref="CommandException">The request failed, or the guest's process ended.</exception>
    internal async IAsyncEnumerable<ControlAnswer> AskAsync(ControlRequest request, [EnumeratorCancellation] CancellationToken cancellation)
    {
        await SendAsync(request, cancellation);
        while (true)
        {
            ControlAnswer answer = await ReceiveAsync(cancellation);
            if (string.Equals(answer.Event, ControlAnswer.Error, StringComparison.Ordinal))
            {
                throw new CommandException(answer.Message ?? $"The guest at {_path} refused '{request.Command}' without a reason.");
            }

            yield return answer;
            if (answer.IsLast)
            {
                yield break;
            }
        }
    }

    /// <summary>Asks for the guest's state.</summary>
    /// <param name="cancellation">Ends the waiting.</param>
    /// <returns>The state.</returns>
    /// <exception cref="CommandException">The guest's process ended.</exception>
    internal async Task<VmStatus> StatusAsync(CancellationToken cancellation) =>
        await LastStatusAsync(new ControlRequest { Command = ControlRequest.Status }, cancellation);

    /// <summary>Sends a request and waits for its last answer.</summary>
    /// <param name="request">What to do.</param>
    /// <param name="cancellation">Ends the waiting, not the request.</param>
    /// <returns>The guest's state in that answer.</returns>
    /// <exception cref="CommandException">The request failed, or the guest's process ended.</exception>
    internal async Task<VmStatus> LastStatusAsync(ControlRequest request, CancellationToken cancellation)
    {
        VmStatus? status = null;
        await foreach (ControlAnswer answer in AskAsync(request, cancellation))
        {
            status = answer.Status;
        }

        return status ?? throw Unreadable();
    }

    /// <summary>Arms or disarms memory.</summary>
    /// <param name="request">What, and how.</param>
    /// <param name="cancellation">Ends the waiting, not the request.</param>
    /// <returns>What came of it.</returns>
    /// <exception cref="CommandException">The request failed, or the guest's process ended.</exception>
    internal async Task<ArmingReport> ArmAsync(ControlRequest request, CancellationToken cancellation)
    {
        ArmingReport? report = null;
        await foreach (ControlAnswer answer in AskAsync(request, cancellation))
        {
            report = answer.Arming;
        }

        return report ?? throw Unreadable();
    }

    /// <summary>Has a half of a guest written.</summary>
    /// <param name="request">Where to.</param>
    /// <param name="progress">Hears how far it is.</param>
    /// <param name="cancellation">Ends the waiting, not the request.</param>
    /// <returns>What was written.</returns>
    /// <exception cref="CommandException">The request failed, or the guest's process ended.</exception>
    internal async Task<ExportReport> ExportAsync(ControlRequest request, Action<ExportReport> progress, CancellationToken cancellation)
    {
        ExportReport? report = null;
        await foreach (ControlAnswer answer in AskAsync(request, cancellation))
        {
            report = answer.Export;
            if (!answer.IsLast && report is not null)
            {
                progress(report);
            }
        }

        return report ?? throw Unreadable();
    }

    /// <summary>Closes the connection.</summary>
    public void Dispose()
    {
        _reader.Dispose();
        _stream.Dispose();
    }

    private async Task SendAsync(ControlRequest request, CancellationToken cancellation)
    {
        byte[] json = JsonSerializer.SerializeToUtf8Bytes(request, CliJson.Default.ControlRequest);
        try
        {
            await _stream.WriteAsync((byte[])[.. json, (byte)'\n'], cancellation);
        }
        catch (IOException)
        {
            throw Gone();
        }
    }

    private async Task<ControlAnswer> ReceiveAsync(CancellationToken cancellation)
    {
        string? line;
        try
        {
            line = await _reader.ReadLineAsync(cancellation);
        }
        catch (IOException)
        {
            throw Gone();
        }

        if (line is null)
        {
            throw Gone();
        }

        try
        {
            return JsonSerializer.Deserialize(line, CliJson.Default.ControlAnswer) ?? throw Unreadable();
        }
        catch (JsonException)
        {
            throw Unreadable();
        }
    }

    private CommandException Gone() => new($"The guest's process behind {_path} ended before it answered. Its own output says why.");

    private CommandException Unreadable() => new($"What listens at {_path} is not a guest of this version of pageferry: its answer could not be read.");
}
