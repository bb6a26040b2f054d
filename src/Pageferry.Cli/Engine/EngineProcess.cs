using System.Diagnostics;
using System.Globalization;
using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary>An engine's process, seen from the guest's.</summary>
internal sealed class EngineProcess : IDisposable
{
    /// <summary>How long one takes at most that is about to end.</summary>
    private static readonly TimeSpan s_parting = TimeSpan.FromMilliseconds(200);

    private readonly Process _process;
    private readonly long _began = Environment.TickCount64;
    private readonly Lock _looking = new();
    private UnixSocket? _ordersOfEngine;
    private long _heard = Environment.TickCount64;

    private EngineProcess(Process process, EngineChannel calls)
    {
        _process = process;
        Calls = calls;
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.CreatePair(UnixSocketType.SequencedPackets);
        Orders = new EngineChannel(ours);
        _ordersOfEngine = theirs;
    }

    /// <summary>Its id.</summary>
    internal int Pid => _process.Id;

    /// <summary>The version of its program; null before it said hello.</summary>
    internal string? Build { get; set; }

    /// <summary>Whether it has taken over what there was.</summary>
    internal bool IsReady { get; set; }

    /// <summary>Why it ended by itself; null if it has not said so.</summary>
    internal string? Refusal { get; set; }

    /// <summary>Whether it has ended.</summary>
    internal bool HasEnded => _process.HasExited;

    /// <summary>How long it has lived.</summary>
    internal TimeSpan Age => TimeSpan.FromMilliseconds(Environment.TickCount64 - _began);

    /// <summary>What it calls.</summary>
    internal EngineChannel Calls { get; }

    /// <summary>What it is ordered.</summary>
    internal EngineChannel Orders { get; }

    /// <summary>Starts an engine.</summary>
    /// <param name="program">The program; null for this one.</param>
    /// <returns>The process, which the caller disposes.</returns>
    /// <exception cref="CommandException">It could not be started.</exception>
    internal static EngineProcess Start(string? program)
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.CreatePair(UnixSocketType.SequencedPackets);
        using (theirs)
        {
            // Known by its number, which nothing else that is started meanwhile makes use of.
            using FileDescriptor forEngine = theirs.Descriptor.DuplicateForPrograms();
            string[] arguments = ["engine", "--socket", forEngine.Number.ToString(CultureInfo.InvariantCulture)];
            ProcessStartInfo info = program is null ? SelfCommand.StartInfo(arguments) : new ProcessStartInfo(program, arguments);

            // The guest's process may be held by its standard input.
            info.RedirectStandardInput = true;
            try
            {
                var process = new Process { StartInfo = info };
                _ = process.Start();
                process.StandardInput.Close();
                return new EngineProcess(process, new EngineChannel(ours));
            }
            catch (Exception e) when (e is System.ComponentModel.Win32Exception or InvalidOperationException)
            {
                ours.Dispose();
                throw new CommandException($"Could not start an engine from {info.FileName}: {e.Message}. Give the path of a pageferry program that this user may run.");
            }
        }
    }

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
    internal void Kill()
    {
        try
        {
            _process.Kill();
        }
        catch (InvalidOperationException)
        {
            // It has ended.
        }
    }

    /// <summary>Waits a little until it has ended by itself, and ends it if it hasn't.</summary>
    /// <returns>How it ended, for a reader.</returns>
    internal string End()
    {
        const int Killed = 137;
        if (!_process.WaitForExit(s_parting))
        {
            Kill();
            _process.WaitForExit();
        }

        return _process.ExitCode == Killed ? "was killed" : string.Create(CultureInfo.InvariantCulture, $"ended with code {_process.ExitCode}");
    }

    /// <summary>Ends it.</summary>
    public void Dispose()
    {
        Kill();
        _process.WaitForExit();
        _process.Dispose();
        Calls.Dispose();
        Orders.Dispose();
        _ordersOfEngine?.Dispose();
    }
}
