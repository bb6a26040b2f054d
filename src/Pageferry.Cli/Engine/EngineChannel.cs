using System.Buffers.Binary;
using System.Text.Json;
using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary>One way of asking between the process of a guest and its engine's: one side asks, one question after another, and the other answers. File descriptors come along.</summary>
/// <param name="socket">A socket of packets; owned by the channel.</param>
internal sealed class EngineChannel(UnixSocket socket) : IDisposable
{
    /// <summary>The longest packet.</summary>
    private const int MostBytes = 64 << 10;

    private const int MostDescriptors = 8;

    /// <summary>The longest text, so that any message fits into a packet.</summary>
    private const int MostText = 8 << 10;

    private readonly Lock _asking = new();
    private readonly byte[] _packet = new byte[MostBytes];
    private readonly FileDescriptor?[] _descriptors = new FileDescriptor?[MostDescriptors];
    private long _number;

    /// <summary>Asks, and waits for the answer.</summary>
    /// <param name="question">What; its number is given here.</param>
    /// <param name="longest">How long to wait; <see cref="Timeout.InfiniteTimeSpan"/> for as long as it takes.</param>
    /// <param name="received">The descriptors that came with the answer, which the caller disposes.</param>
    /// <param name="descriptors">What goes along.</param>
    /// <returns>The answer.</returns>
    /// <exception cref="CommandException">It could not be done; the message is the other side's.</exception>
    /// <exception cref="EndOfStreamException">The other side is gone.</exception>
    /// <exception cref="TimeoutException">It did not answer in time.</exception>
    internal EngineMessage Ask(EngineMessage question, TimeSpan longest, out FileDescriptor[] received, params ReadOnlySpan<FileDescriptor> descriptors)
    {
        if (!_asking.TryEnter(longest))
        {
            throw new TimeoutException("The other process does not answer what it was asked before.");
        }

        try
        {
            _number++;
            Send(question with { Number = _number }, descriptors);
            long until = longest == Timeout.InfiniteTimeSpan ? long.MaxValue : Environment.TickCount64 + (long)longest.TotalMilliseconds;
            while (true)
            {
                EngineMessage? answer = TryReceive(until, out received);
                if (answer is null)
                {
                    throw new EndOfStreamException($"The other process ended before it had answered '{question.What}'.");
                }

                if (answer.Number == _number)
                {
                    return answer.Error is null ? answer : throw new CommandException(answer.Error);
                }

                // Of a question that was not waited for any longer.
                Array.ForEach(received, descriptor => descriptor.Dispose());
            }
        }
        finally
        {
            _asking.Exit();
        }
    }

    /// <summary>Asks for something that nothing comes along with.</summary>
    /// <inheritdoc cref="Ask(EngineMessage, TimeSpan, out FileDescriptor[], ReadOnlySpan{FileDescriptor})"/>
    internal EngineMessage Ask(EngineMessage question, params ReadOnlySpan<FileDescriptor> descriptors)
    {
        EngineMessage answer = Ask(question, Timeout.InfiniteTimeSpan, out FileDescriptor[] received, descriptors);
        Array.ForEach(received, descriptor => descriptor.Dispose());
        return answer;
    }

    /// <summary>Answers questions until the other side is gone.</summary>
    /// <param name="answer">Answers one; it owns what came along. What it throws is told to who asked.</param>
    internal void Serve(Func<EngineMessage, FileDescriptor[], EngineAnswer> answer)
    {
        while (TryReceive(long.MaxValue, out FileDescriptor[] received) is { } question)
        {
            EngineAnswer answered;
            try
            {
                answered = answer(question, received);
            }
            catch (Exception e) when (e is not OutOfMemoryException)
            {
                answered = new EngineAnswer(new EngineMessage { What = question.What, Error = e.Message });
            }

            Send(answered.Message with { What = question.What, Number = question.Number }, answered.Descriptors);
            answered.Dispose();
        }
    }

    /// <summary>Closes the socket: the other side sees the end.</summary>
    public void Dispose() => socket.Dispose();

    private static string? Shortened(string? text) => text is { Length: > MostText } ? text[..MostText] : text;

    private void Send(EngineMessage message, ReadOnlySpan<FileDescriptor> descriptors)
    {
        byte[] bytes = JsonSerializer.SerializeToUtf8Bytes(message with { Text = Shortened(message.Text), Error = Shortened(message.Error) }, CliJson.Default.EngineMessage);
        if (bytes.Length > MostBytes)
        {
            throw new InvalidDataException($"A message '{message.What}' of {bytes.Length} bytes is longer than {MostBytes}.");
        }

        try
        {
            socket.Send(bytes, descriptors);
        }
        catch (LinuxException e) when (e.Errno is Errno.EPIPE or Errno.ECONNRESET)
        {
            throw new EndOfStreamException($"The other process ended before '{message.What}' was sent to it.", e);
        }
    }

    /// <returns>A message; null when the other side is gone.</returns>
    private EngineMessage? TryReceive(long until, out FileDescriptor[] received)
    {
        received = [];
        var poll = new Poll(socket.Descriptor);
        if (until != long.MaxValue && poll.Wait((int)Math.Clamp(until - Environment.TickCount64, 0, int.MaxValue)) == 0)
        {
            throw new TimeoutException("The other process does not answer.");
        }

        int bytes;
        int count;
        try
        {
            bytes = socket.Receive(_packet, _descriptors, out count);
        }
        catch (LinuxException e) when (e.Errno == Errno.ECONNRESET)
        {
            return null;
        }

        received = [.. _descriptors.Take(count).Select(descriptor => descriptor!)];
        try
        {
            return bytes == 0 ? null : JsonSerializer.Deserialize(_packet.AsSpan(0, bytes), CliJson.Default.EngineMessage);
        }
        catch (JsonException e)
        {
            Array.ForEach(received, descriptor => descriptor.Dispose());
            throw new InvalidDataException($"The other process sent what can't be read: {e.Message}", e);
        }
    }
}
