using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary>An engine's process, seen from the guest's.</summary>
internal abstract class EngineProcess : IDisposable
{
    private readonly long _began = Environment.TickCount64;
    private readonly Lock _looking = new();
    private UnixSocket? _ordersOfEngine;
    private long _heard = Environment.TickCount64;

    /// <param name="calls">The socket that it calls on; owned by the engine from now on.</param>
    private protected EngineProcess(UnixSocket calls)
    {
        Calls = new EngineChannel(calls);
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.CreatePair(UnixSocketType.SequencedPackets);
        Orders = new EngineChannel(ours);
        _ordersOfEngine = theirs;
    }

    /// <summary>Its id.</summary>
    internal abstract int Pid { get; }

    /// <summary>The version of its program; null before it said hello.</summary>
    internal string? Build { get; set; }

    /// <summary>Whether it has taken over what there was.</summary>
    internal bool IsReady { get; set; }

    /// <summary>Why it ended by itself; null if it has not said so.</summary>
    internal string? Refusal { get; set; }

    /// <summary>Whether it has ended.</summary>
    internal abstract bool HasEnded { get; }

    /// <summary>How long it has lived, as far as this process knows.</summary>
    internal TimeSpan Age => TimeSpan.FromMilliseconds(Environment.TickCount64 - _began);

    /// <summary>What it calls.</summary>
    internal EngineChannel Calls { get; }

    /// <summary>What it is ordered.</summary>
    internal EngineChannel Orders { get; }

    /// <summary>How long one takes at most that is about to end.</summary>
    private protected static TimeSpan Parting { get; } = TimeSpan.FromMilliseconds(200);

    /// <summary>Gives the engine's end of <see cref="Orders"/> away, once: only the engine has it then, so that its end is seen there.</summary>
    /// <returns>The descriptor, which the caller disposes.</returns>
    /// <exception cref="InvalidDataException">The engine has got it.</exception>
    internal FileDescriptor TakeItsOrders()
    {
        using UnixSocket theirs = Interlocked.Exchange(ref _ordersOfEngine, null) ?? throw new InvalidDataException("The engine said hello twice.");
        return theirs.Descriptor.Duplicate();
    }

    /// <summary>Looks whether it answers.</summary>
    /// <param name="patience">How long to wait for that.</param>
    /// <returns>How long it has not; null if it does, has ended, or is looked at just now.</returns>
    internal TimeSpan? Silence(TimeSpan patience)
    {
        if (!_looking.TryEnter())
        {
            return null;
        }

        try
        {
            if (IsReady)
            {
                _ = Orders.Ask(new EngineMessage { What = EngineMessage.Ask }, patience, out _);
                _heard = Environment.TickCount64;
                return null;
            }
        }
        catch (TimeoutException)
        {
            // It is to have answered for once.
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException or CommandException)
        {
            return null;
        }
        finally
        {
            _looking.Exit();
        }

        return TimeSpan.FromMilliseconds(Environment.TickCount64 - _heard);
    }

    /// <summary>Kills it, unless it has ended.</summary>
    internal abstract void Kill();

    /// <summary>Waits a little until it has ended by itself, and ends it if it hasn't.</summary>
    /// <returns>How it ended, for a reader.</returns>
    internal abstract string End();

    /// <summary>Ends it.</summary>
    public virtual void Dispose()
    {
        Calls.Dispose();
        Orders.Dispose();
        _ordersOfEngine?.Dispose();
    }
}
