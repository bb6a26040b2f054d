using System.Net;

namespace Pageferry.Cli.Tests;

public sealed class LoopbackEndpointTests
{
    [Theory]
    [InlineData("127.0.0.1:4444", "127.0.0.1", 4444)]
    [InlineData("127.9.9.9:1", "127.9.9.9", 1)]
    [InlineData("[::1]:65535", "::1", 65535)]
    [InlineData("127.0.0.1:0", "127.0.0.1", 0)]
    public void Loopback_addresses_are_read(string text, string address, int port)
    {
        Assert.True(LoopbackEndpoint.TryParse(text, anyPort: true, out IPEndPoint endpoint, out string error), error);
        Assert.Equal(new IPEndPoint(IPAddress.Parse(address), port), endpoint);
    }

    [Fact]
    public void Localhost_is_loopback()
    {
        Assert.True(LoopbackEndpoint.TryParse("localhost:4444", anyPort: false, out IPEndPoint endpoint, out string error), error);
        Assert.True(IPAddress.IsLoopback(endpoint.Address));
    }

    [Theory]
    [InlineData("0.0.0.0:4444")]
    [InlineData("[::]:4444")]
    [InlineData("192.168.1.1:4444")]
    [InlineData("[fe80::1]:4444")]
    public void Beyond_loopback_is_refused_with_the_way_around(string text)
    {
        Assert.False(LoopbackEndpoint.TryParse(text, anyPort: true, out _, out string error));
        Assert.Contains($"{text} is beyond loopback", error, StringComparison.Ordinal);
        Assert.Contains("ssh -N -L", error, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("")]
    [InlineData("4444")]
    [InlineData(":4444")]
    [InlineData("127.0.0.1:")]
    [InlineData("127.0.0.1:-1")]
    [InlineData("127.0.0.1:65536")]
    [InlineData("127.0.0.1:http")]
    [InlineData("::1:4444x")]
    [InlineData("[127.0.0.1]:4444")]
    public void What_is_no_address_is_refused(string text)
    {
        Assert.False(LoopbackEndpoint.TryParse(text, anyPort: true, out _, out string error));
        Assert.NotEmpty(error);
    }

    [Fact]
    public void Port_zero_can_be_listened_on_but_not_connected_to()
    {
        Assert.False(LoopbackEndpoint.TryParse("127.0.0.1:0", anyPort: false, out _, out string error));
        Assert.Contains("port 0", error, StringComparison.Ordinal);
    }
}
