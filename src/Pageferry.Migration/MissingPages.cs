using Pageferry.Memory;

namespace Pageferry.Migration;

/// <summary>What a destination says first on a new link: which pages it lacks (<see cref="MessageType.Missing"/>), and how far the guest is (<see cref="MessageType.Found"/>).</summary>
internal static class MissingPages
{
    /// <summary>Says it. No page of the link before is on its way into memory any more.</summary>
    internal static void Send(PeerConnection control, PageStates states, FoundGuest found)
    {
        var missing = new PageBitmap(states.PageCount);
        for (ulong page = 0; page < states.PageCount; page++)
        {
            if (states[page] is PageState.Absent or PageState.Requested)
            {
                _ = missing.Add(page);
            }
        }

        var runs = new byte[RunCoding.MostMessageBytes];
        for (ulong from = missing.Next(0, missing.PageCount); from < missing.PageCount;)
        {
            int bytes = RunCoding.Write(missing, ref from, runs);
            control.Send(MessageType.Missing, runs.AsSpan(0, bytes));
        }

        control.Send(MessageType.Found, [(byte)found]);
    }

    /// <summary>Hears it.</summary>
    /// <param name="control">The new link's control connection.</param>
    /// <param name="missing">Receives the pages; empty before.</param>
    /// <returns>How far the guest is.</returns>
    /// <exception cref="ProtocolException">The destination says something else, or pages twice.</exception>
    internal static FoundGuest Receive(PeerConnection control, PageBitmap missing)
    {
        var runs = new byte[RunCoding.MostMessageBytes];
        ulong end = 0;
        while (true)
        {
            (MessageType type, int bytes) = control.ReceiveHeader();
            if (type == MessageType.Found && bytes == 1)
            {
                control.ReceivePayload(type, runs.AsSpan(0, 1));
                return Known(runs[0]);
            }

            if (type != MessageType.Missing || bytes == 0 || bytes > runs.Length)
            {
                throw new ProtocolException($"The destination sent a frame {type} of {bytes} bytes where it says what it lacks.");
            }

            control.ReceivePayload(type, runs.AsSpan(0, bytes));
            end = Add(runs.AsSpan(0, bytes), missing, end);
        }
    }

    /// <summary>Hears how far the guest is, behind whatever the destination says meanwhile.</summary>
    /// <exception cref="ProtocolException">It says something that can't be.</exception>
    internal static FoundGuest ReceiveFound(PeerConnection control)
    {
        var payload = new byte[RunCoding.MostMessageBytes + sizeof(ulong)];
        while (true)
        {
            (MessageType type, int bytes) = control.ReceiveHeader();
            if (type is not (MessageType.Found or MessageType.Running or MessageType.Complete or MessageType.Digests) || bytes > payload.Length)
            {
                throw new ProtocolException($"The destination sent a frame {type} of {bytes} bytes where it was to drop the guest.");
            }

            control.ReceivePayload(type, payload.AsSpan(0, bytes));
            if (type == MessageType.Found && bytes == 1)
            {
                return Known(payload[0]);
            }
        }
    }

    private static FoundGuest Known(byte found) =>
        Enum.IsDefined((FoundGuest)found) ? (FoundGuest)found : throw new ProtocolException($"The destination found the guest in a state {found} that is unknown here.");

    /// <returns>The end of the last run.</returns>
    private static ulong Add(ReadOnlySpan<byte> runs, PageBitmap missing, ulong before)
    {
        ulong end = 0;
        while (!runs.IsEmpty)
        {
            (ulong first, ulong count) = RunCoding.Read(ref runs, ref end, missing.PageCount);
            missing.AddRun(first >= before ? first : throw new ProtocolException("The destination named missing pages twice."), count);
        }

        return end;
    }
}
