using System.Net;
using Pageferry.Migration;
using Pageferry.Migration.Tests;

namespace Pageferry.Fuzz;

/// <summary>A listener that is asked in by anybody: whatever they say, it goes on.</summary>
internal sealed class Strangers
{
    private static readonly TimeSpan s_patience = TimeSpan.FromMilliseconds(200);
    private static readonly Lazy<Strangers> s_plain = new(() => new Strangers(security: null));
    private static readonly Lazy<Strangers> s_secured = new(() => new Strangers(MakeSecurity()));

    private readonly IPEndPoint _listening;

    private Strangers(MigrationSecurity? security)
    {
        // For as long as the process lives.
        var listener = new ConnectionListener(new IPEndPoint(IPAddress.Loopback, 0), VersionRange.Current, security, logger: null, s_patience);
        _listening = listener.EndPoint;
        new Thread(() => EndSessions(listener)) { IsBackground = true }.Start();
    }

    internal static Strangers Plain => s_plain.Value;

    internal static Strangers Secured => s_secured.Value;

    /// <summary>Says something and goes.</summary>
    internal void Send(byte[] input) => Stranger.Say(_listening, input);

    private static MigrationSecurity MakeSecurity()
    {
        using var certificates = new TestCertificates();
        return certificates.Make("fuzz");
    }

    private static void EndSessions(ConnectionListener listener)
    {
        while (true)
        {
            listener.AcceptControl().Dispose();
        }
    }
}
