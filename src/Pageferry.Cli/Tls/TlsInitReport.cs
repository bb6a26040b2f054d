namespace Pageferry.Cli;

/// <summary>What <c>tls init --json</c> writes: the files that are there now.</summary>
/// <param name="Ok">Always true: a failure has a report of its own.</param>
/// <param name="CaCert">The file of the authority's certificate.</param>
/// <param name="CaKey">The file of its private key.</param>
/// <param name="CaIsNew">Whether the authority was made now.</param>
/// <param name="CaUntil">The last day on which it is good.</param>
/// <param name="Hosts">The hosts' certificates, which were made now.</param>
internal sealed record TlsInitReport(bool Ok, string CaCert, string CaKey, bool CaIsNew, DateTimeOffset CaUntil, IReadOnlyList<HostFiles> Hosts);
