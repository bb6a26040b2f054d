using System.Diagnostics;
using System.IO.MemoryMappedFiles;

namespace Pageferry.Bench;

/// <summary>The process of tests/Shared/Criu/fill_and_check.c, and what it says of itself in a file that it maps, wherever it is restored.</summary>
internal sealed class MovedProcess : IDisposable
{
    /// <summary>As moving_process.h has it.</summary>
    private const int Passes = 2;
    private const int Bad = 3;
    private const int LongestGap = 5;
    private const int GapEnd = 6;
    private const int Stalls = 512 + 1024;
    private const int StallBuckets = 512;
    private const int BucketsPerPower = 8;
    private const long ReportBytes = (Stalls + StallBuckets) * sizeof(ulong);

    private readonly Process _process;
    private readonly MemoryMappedFile _file;
    private readonly MemoryMappedViewAccessor _report;
    private readonly ulong[] _stalls = new ulong[StallBuckets];

    private MovedProcess(Process process, string report)
    {
        _process = process;
        _file = MemoryMappedFile.CreateFromFile(report);
        _report = _file.CreateViewAccessor(0, ReportBytes);
    }

    /// <summary>When it ran again after its longest time without, which a restore ends, in nanoseconds of the wall clock; 0 as long as it has not.</summary>
    public ulong RanAgainAt => Word(LongestGap) == 0 ? 0 : Word(GapEnd);

    /// <summary>How many words it found wrong.</summary>
    public ulong WrongWords => Word(Bad);

    /// <summary>How many pages it has gone over since <see cref="Forget"/>.</summary>
    public ulong PagesChecked => ReadStalls().Aggregate(0UL, (sum, count) => sum + count);

    /// <summary>Has a process fill memory and go over it in pseudo-random order; returns when it has done so once.</summary>
    /// <param name="folder">Where the program and its report go.</param>
    /// <param name="mebibytes">How much memory.</param>
    public static MovedProcess Start(string folder, int mebibytes)
    {
        string program = Path.Combine(folder, "fill_and_check");
        string report = Path.Combine(folder, "report");
        string source = Path.Combine(Comparison.Folder, "..", "tests", "Shared", "Criu", "fill_and_check.c");
        _ = Comparison.Run(["gcc", "-O2", "-Wall", "-pthread", "-o", program, source]);
        Process process = Process.Start(program, [report, $"{mebibytes}", "random"]);
        try
        {
            CriuRun.Await(() => File.Exists(report) && new FileInfo(report).Length >= ReportBytes, "the process to start");
            var moved = new MovedProcess(process, report);
            CriuRun.Await(() => moved.Word(Passes) > 0, "the process to fill its memory");
            return moved;
        }
        catch
        {
            process.Kill();
            process.Dispose();
            throw;
        }
    }

    /// <summary>Dumps it, which ends it.</summary>
    /// <param name="criu">Who dumps it.</param>
    /// <param name="images">Where the images go.</param>
    public void Dump(string criu, string images)
    {
        _ = Comparison.Run([.. DumpCommand(criu, images)]);
        _process.WaitForExit();
    }

    /// <summary>Dumps it without its memory.</summary>
    /// <param name="criu">Who dumps it.</param>
    /// <param name="images">Where the images go.</param>
    /// <param name="port">Where to serve the memory, on loopback.</param>
    /// <returns>CRIU, which serves it when the port is open, and ends the process when all of it was served.</returns>
    public Process DumpLazily(string criu, string images, int port) =>
        CriuRun.Start([.. DumpCommand(criu, images), "--lazy-pages", "--address", "127.0.0.1", "--port", $"{port}"]);

    /// <summary>Forgets what was measured.</summary>
    public void Forget()
    {
        _report.Write(Bad * sizeof(ulong), 0UL);
        _report.Write(LongestGap * sizeof(ulong), 0UL);
        _report.Write(GapEnd * sizeof(ulong), 0UL);
        _report.WriteArray(Stalls * sizeof(ulong), new ulong[StallBuckets], 0, StallBuckets);
    }

    /// <summary>How long pages took to be checked, in microseconds.</summary>
    /// <param name="percentile">Of all that were: 0 to 1.</param>
    public double StallUs(double percentile)
    {
        ulong[] counts = ReadStalls();
        double before = percentile * counts.Aggregate(0UL, (sum, count) => sum + count);
        ulong sum = 0;
        int bucket = 0;
        while (bucket < StallBuckets - 1 && (sum += counts[bucket]) < before)
        {
            bucket++;
        }

        // The middle of the bucket.
        return Math.Pow(2, bucket / BucketsPerPower) * (1 + (((bucket % BucketsPerPower) + 0.5) / BucketsPerPower)) / 1000;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _process.Kill();
        _process.WaitForExit();
        _process.Dispose();
        _report.Dispose();
        _file.Dispose();
    }

    private string[] DumpCommand(string criu, string images) =>
        [criu, "dump", "-t", $"{_process.Id}", "-D", Directory.CreateDirectory(images).FullName, "-v2", "-o", "dump.log"];

    private ulong Word(int number) => _report.ReadUInt64(number * sizeof(ulong));

    private ulong[] ReadStalls()
    {
        _ = _report.ReadArray(Stalls * sizeof(ulong), _stalls, 0, StallBuckets);
        return _stalls;
    }
}
