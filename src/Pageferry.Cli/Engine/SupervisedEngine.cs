using Pageferry.Linux;

namespace Pageferry.Cli;

/// <summary>An engine's process that a supervisor starts, and that has come to the guest's.</summary>
internal sealed class SupervisedEngine : EngineProcess
{
    private readonly ProcessDescriptor _process;

    private SupervisedEngine(ProcessDescriptor process, UnixSocket calls)
        : base(calls) => _process = process;

    /// <inheritdoc/>
    internal override int Pid => _process.Id;

    /// <inheritdoc/>
    internal override bool HasEnded => _process.HasEnded;

    /// <summary>Takes the engine that has connected.</summary>
    /// <param name="calls">Its connection; owned by the result.</param>
    /// <param name="user">Whose it has to be.</param>
    /// <returns>The process, which the caller disposes; null if it is gone already.</returns>
    /// <exception cref="CommandException">It is somebody else's, or could not be ended from here.</exception>
    internal static SupervisedEngine? TryTake(UnixSocket calls, uint user)
    {
        ProcessDescriptor? process = null;
        SupervisedEngine? taken = null;
        try
        {
            UnixPeer peer = calls.GetPeer();

            // An engine that hangs has to be ended before another one takes its place. This opens who has the number now; that is the engine if its connection is still there.
            process = peer.ProcessId == 0 ? null : ProcessDescriptor.Open(peer.ProcessId);
            var connection = new Poll(calls.Descriptor);
            _ = connection.Wait(0);
            if (connection.IsClosed(0))
            {
                return null;
            }

            if (peer.UserId != user || process is not { MayBeSignalled: true })
            {
                throw new CommandException(
                    $"An engine came (pid {peer.ProcessId}, user {peer.UserId}) that could not be ended from here if it hangs, and is not taken. Have it run as user {user}, and in this process's pid namespace or one within it.");
            }

            taken = new SupervisedEngine(process, calls);
            return taken;
        }
        catch (LinuxException e) when (e.Errno is Errno.ESRCH or Errno.EINVAL)
        {
            return null;
        }
        finally
        {
            if (taken is null)
            {
                process?.Dispose();
                calls.Dispose();
            }
        }
    }

    /// <inheritdoc/>
    internal override void Kill() => _process.Kill();

    /// <inheritdoc/>
    internal override string End()
    {
        if (_process.Wait((int)Parting.TotalMilliseconds))
        {
            return "ended";
        }

        Kill();
        _ = _process.Wait(-1);
        return "was killed";
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        Kill();
        _ = _process.Wait(-1);
        _process.Dispose();
        base.Dispose();
    }
}
