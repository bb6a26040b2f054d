namespace Pageferry.Cli;

/// <summary>A directory with an authority and the certificates that it has signed, each with its key beside it.</summary>
internal static class TlsFiles
{
    /// <summary>Makes certificates, and an authority if there is none yet.</summary>
    /// <param name="directory">The directory, which is made if it isn't there.</param>
    /// <param name="hosts">Whom for: a certificate for each.</param>
    /// <returns>What is there now.</returns>
    /// <exception cref="CommandException">It could not be done; nothing was written.</exception>
    internal static TlsInitReport Make(string directory, IReadOnlyList<HostNames> hosts)
    {
        string certFile = Path.Combine(directory, "ca-cert.pem");
        string keyFile = Path.Combine(directory, "ca-key.pem");
        bool isNew = !Path.Exists(certFile) && !Path.Exists(keyFile);
        var files = new NewFiles();
        using CertificateAuthority authority = isNew ? New(files, certFile, keyFile) : CertificateAuthority.Load(certFile, keyFile);
        var made = new List<HostFiles>();
        foreach (HostNames host in hosts)
        {
            string start = Path.Combine(directory, host.FileName);
            string certificate = authority.Sign(host, out string key, out DateTimeOffset until);
            made.Add(new HostFiles(host.All, $"{start}-cert.pem", $"{start}-key.pem", until));
            files.Add(made[^1].Cert, certificate, isSecret: false);
            files.Add(made[^1].Key, key, isSecret: true);
        }

        MakeDirectory(directory);
        files.Write();
        return new TlsInitReport(Ok: true, certFile, keyFile, isNew, authority.Until, made);
    }

    private static CertificateAuthority New(NewFiles files, string certFile, string keyFile)
    {
        var authority = CertificateAuthority.Create(out string key);
        files.Add(certFile, authority.CertificatePem, isSecret: false);
        files.Add(keyFile, key, isSecret: true);
        return authority;
    }

    private static void MakeDirectory(string directory)
    {
        try
        {
            _ = Directory.CreateDirectory(directory, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CommandException($"Could not make the directory {directory}: {e.Message}");
        }
    }
}
