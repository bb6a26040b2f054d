namespace Pageferry.Migration;

/// <summary>Decides how one sender's batches are compressed: as told, or by what the batches before took to pack and to send.</summary>
internal sealed class CompressionChoice(MigrationCompression compression)
{
    /// <summary>One batch in so many is packed otherwise than what is best so far, to see whether it still is.</summary>
    private const int TryOneIn = 32;

    /// <summary>How much the newest batch counts.</summary>
    private const double Weight = 0.2;

    /// <summary>Telling what changed in a page takes about as long as sending it at 2 GiB/s.</summary>
    private const double DeltaNanosecondsPerByte = 0.5;

    private static readonly PageEncoding[] s_all = [PageEncoding.None, PageEncoding.Lz4, PageEncoding.Zstd];

    private readonly double[] _packing = new double[s_all.Length];
    private readonly double[] _ratio = [1, 0, 0];
    private double _sending;
    private int _batches;

    /// <summary>Whether a page that was sent before is to be told as what changed in it.</summary>
    internal bool DeltasPay => compression is MigrationCompression.Lz4 or MigrationCompression.Zstd || _sending > DeltaNanosecondsPerByte;

    /// <summary>How to pack the next batch.</summary>
    internal PageEncoding Next()
    {
        switch (compression)
        {
            case MigrationCompression.None:
                return PageEncoding.None;
            case MigrationCompression.Lz4:
                return PageEncoding.Lz4;
            case MigrationCompression.Zstd:
                return PageEncoding.Zstd;
        }

        _batches++;
        if (_batches % TryOneIn < s_all.Length)
        {
            return s_all[_batches % TryOneIn];
        }

        PageEncoding best = PageEncoding.None;
        foreach (PageEncoding encoding in s_all)
        {
            best = Cost(encoding) < Cost(best) ? encoding : best;
        }

        return best;
    }

    /// <summary>Learns what a batch took.</summary>
    /// <param name="tried">How it was to be packed.</param>
    /// <param name="unpackedBytes">Its payload before.</param>
    /// <param name="sentBytes">What was sent.</param>
    /// <param name="packing">How long packing took, in ns.</param>
    /// <param name="sending">How long sending took, waits for the bandwidth limit included, in ns.</param>
    internal void Learn(PageEncoding tried, int unpackedBytes, int sentBytes, double packing, double sending)
    {
        if (unpackedBytes == 0)
        {
            return;
        }

        bool isFirst = _ratio[(int)tried] == 0 || (tried == PageEncoding.None && _sending == 0);
        _sending = _sending == 0 ? sending / sentBytes : Blend(_sending, sending / sentBytes);
        if (tried != PageEncoding.None)
        {
            _packing[(int)tried] = isFirst ? packing / unpackedBytes : Blend(_packing[(int)tried], packing / unpackedBytes);
            _ratio[(int)tried] = isFirst ? (double)sentBytes / unpackedBytes : Blend(_ratio[(int)tried], (double)sentBytes / unpackedBytes);
        }
    }

    private static double Blend(double before, double now) => before + (Weight * (now - before));

    /// <summary>ns per byte of content.</summary>
    private double Cost(PageEncoding encoding) =>
        _ratio[(int)encoding] == 0 ? double.PositiveInfinity : _packing[(int)encoding] + (_ratio[(int)encoding] * _sending);
}
