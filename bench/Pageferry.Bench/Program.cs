// Benchmarks, each beside a twin in C or a peer, alternated in the same run. See docs/performance.md.
using Pageferry.Bench;

return args switch
{
    ["local-fault", .. var options] => LocalFault.Compare(Rounds(options)),
    ["local-fault-once", var pages] => LocalFault.RunOnce(ulong.Parse(pages)),
    _ => Usage(),
};

static int Rounds(string[] options) => options is [var rounds] ? int.Parse(rounds) : 7;

static int Usage()
{
    Console.Error.WriteLine("usage: Pageferry.Bench local-fault [ROUNDS]");
    return 2;
}
