using System.Diagnostics;
using System.Globalization;
using SharpFuzz;

namespace Pageferry.Fuzz;

/// <summary>Runs fuzz targets: by the built-in mutator, or under AFL++.</summary>
internal static class Program
{
    private static int Main(string[] arguments)
    {
        switch (arguments)
        {
            case ["list"]:
                Console.WriteLine(string.Join('\n', FuzzTargets.All.Select(target => target.Name)));
                return 0;

            case ["run", var name, var seconds, .. var seed] when Find(name) is { } target:
                return Run(target, double.Parse(seconds, CultureInfo.InvariantCulture), seed is [var number] ? int.Parse(number, CultureInfo.InvariantCulture) : 1);

            case ["read", var name, var file] when Find(name) is { } target:
                Console.WriteLine(target.Takes(File.ReadAllBytes(file)) ? "taken" : "refused");
                return 0;

            case ["afl", var name] when Find(name) is { } target:
                Fuzzer.OutOfProcess.Run(stream =>
                {
                    using var input = new MemoryStream();
                    stream.CopyTo(input);
                    _ = target.Takes(input.ToArray());
                });
                return 0;

            case ["seeds", var folder]:
                Corpus.Write(folder);
                return 0;

            default:
                Console.Error.WriteLine("usage: Pageferry.Fuzz list | run TARGET SECONDS [SEED] | read TARGET FILE | afl TARGET | seeds FOLDER");
                return 2;
        }
    }

    private static FuzzTarget? Find(string name) => FuzzTargets.All.FirstOrDefault(target => target.Name == name);

    private static int Run(FuzzTarget target, double seconds, int seed)
    {
        var run = new FuzzRun(target, Corpus.Of(target), seed);
        long began = Stopwatch.GetTimestamp();
        try
        {
            run.Run(TimeSpan.FromSeconds(seconds));
        }
        catch (FuzzFailureException failure)
        {
            string file = $"crash-{target.Name}";
            File.WriteAllBytes(file, failure.Bytes);
            Console.Error.WriteLine($"{failure.InnerException}\nThe {failure.Bytes.Length} bytes are in {file}.");
            return 1;
        }

        Console.WriteLine(string.Create(
            CultureInfo.InvariantCulture,
            $"{target.Name}: {run.Count.Read} messages read, {run.Count.Taken} taken, in {Stopwatch.GetElapsedTime(began).TotalSeconds:F0} s; the slowest took {run.Slowest.TotalMilliseconds:F1} ms, the most allocated for one {run.MostAllocatedForOne} bytes, working set {Environment.WorkingSet >> 20} MiB"));
        return 0;
    }
}
