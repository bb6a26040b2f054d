using System.Net;

namespace Pageferry.Cli.Tests;

public sealed class NetworkEndpointTests
{
    [Theory]
    [InlineData("127.0.0.1:4444", "127.0.0.1", 4444)]
    [InlineData("192.168.1.1:1", "192.168.1.1", 1)]
    [InlineData("[::1]:65535", "::1", 65535)]
    [InlineData("[::]:0", "::", 0)]
    public void Addresses_are_read(string text, string address, int port)
    {
        NetworkEndpoint endpoint = Parse(text);
        Assert.Equal(new IPEndPoint(IPAddress.Parse(address), port), endpoint.EndPoint);
        Assert.Equal(text, endpoint.ToString());
    }

    [Theory]
    [InlineData("localhost:4444", "localhost", 4444)]
    [InlineData("b.example:1", "b.example", 1)]
    public void Names_are_kept_for_who_connects(string text, string name, int port) =>
        Assert.Equal(new DnsEndPoint(name, port), Parse(text).EndPoint);

    [Theory]
    [InlineData("127.0.0.1:4444", true)]
    [InlineData("127.9.9.9:4444", true)]
    [InlineData("[::1]:4444", true)]
    [InlineData("localhost:4444", true)]
    [InlineData("0.0.0.0:4444", false)]
    [InlineData("[::]:4444", false)]
    [InlineData("192.168.1.1:4444", false)]
    [InlineData("[fe80::1]:4444", false)]
    public void Loopback_is_told_from_the_rest(string text, bool isLoopback) => Assert.Equal(isLoopback, Parse(text).IsLoopback());

    [Fact]
    public void A_host_that_is_not_there_is_named()
    {
        CommandException unknown = Assert.Throws<CommandException>(() => Parse("nowhere.invalid:4444").IsLoopback());
        Assert.Contains("'nowhere.invalid'", unknown.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_name_is_listened_on_by_an_address_of_its() =>
        Assert.True(IPAddress.IsLoopback(Parse("localhost:4444").ToLocal(onlyLoopback: true).Address));

    [Theory]
    [InlineData("")]
    [InlineData("4444")]
    [InlineData(":4444")]
    [InlineData("127.0.0.1:")]
    [InlineData("127.0.0.1:-1")]
    [InlineData("127.0.0.1:65536")]
    [InlineData("127.0.0.1:http")]
    [InlineData("::1:4444")]
    [InlineData("::1:4444x")]
    [InlineData("[127.0.0.1]:4444")]
    [InlineData("[localhost]:4444")]
    [InlineData("a b:4444")]
    [InlineData("a/b:4444")]
    public void What_is_no_address_is_refused(string text)
    {
        Assert.False(NetworkEndpoint.TryParse(text, anyPort: true, out _, out string error));
        Assert.Contains("is not HOST:PORT", error, StringComparison.Ordinal);
    }

    [Fact]
    public void Port_zero_can_be_listened_on_but_not_connected_to()
    {
        Assert.False(NetworkEndpoint.TryParse("127.0.0.1:0", anyPort: false, out _, out string error));
        Assert.Contains("port 0", error, StringComparison.Ordinal);
    }

    private static NetworkEndpoint Parse(string text)
    {
        Assert.True(NetworkEndpoint.TryParse(text, anyPort: true, out NetworkEndpoint? endpoint, out string error), error);
        return endpoint!;
    }
}
