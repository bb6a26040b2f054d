namespace Pageferry.Cli;

/// <summary>A host's certificate, as <c>tls init --json</c> names it.</summary>
/// <param name="Names">The names and addresses that it is for.</param>
/// <param name="Cert">The file of the certificate.</param>
/// <param name="Key">The file of its private key.</param>
/// <param name="Until">The last day on which it is good.</param>
internal sealed record HostFiles(IReadOnlyList<string> Names, string Cert, string Key, DateTimeOffset Until);
