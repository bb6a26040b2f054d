// Benchmarks, each beside a twin in C or a peer, alternated in the same run. See docs/performance.md.
using Pageferry.Bench;
using Pageferry.Memory;

try
{
    return args switch
    {
        ["local-fault", .. var options] => LocalFault.Compare(Rounds(options)),
        ["remote-fault", .. var options] => RemoteFault.Compare(Rounds(options)),
        ["background-fill", .. var options] => BackgroundFill.Compare(Rounds(options)),
        ["downtime", var pageferry, .. var options] => Downtime.Measure(Rounds(options), pageferry),
        ["engine-restart", var pageferry, .. var options] => EngineRestart.Measure(Rounds(options), pageferry),
        ["link-return", var pageferry, .. var options] => LinkReturn.Measure(Rounds(options), pageferry),
        ["locator", .. var options] => Locator.Measure(Rounds(options)),
        ["demand-paging", var pageferry, .. var options] => DemandPaging.Compare(Rounds(options), pageferry),
        ["arming", .. var options] => Arming.Compare(Rounds(options)),
        ["page-sizes", .. var options] => PageSizes.Compare(Rounds(options)),
        ["arming-cycles", var userfaults, var seed] => ArmingCycles.Run(long.Parse(userfaults), int.Parse(seed)),
        ["engine-memory"] => EngineMemory.Measure(),
        ["kernel-matrix", var results, var output, .. var document] => KernelMatrix.Collect(results, output, document is [var path] ? path : null),
        ["qemu", var qemu] => QemuComparison.Compare(qemu, rounds: 5, downtimes: 20, mebibytes: 1024, only: null),
        ["qemu", var qemu, var rounds, var downtimes, var mebibytes, .. var only] =>
            QemuComparison.Compare(qemu, int.Parse(rounds), int.Parse(downtimes), int.Parse(mebibytes), only is [var part] ? part : null),
        ["criu", var pageferry, var criu] => CriuComparison.Compare(pageferry, criu, rounds: 5, remoteRounds: 3, mebibytes: 512),
        ["criu", var pageferry, var criu, var rounds, var remoteRounds, var mebibytes] => CriuComparison.Compare(pageferry, criu, int.Parse(rounds), int.Parse(remoteRounds), int.Parse(mebibytes)),
        ["peer-source", var image, var mebibytes, var backing, var certificates] =>
            PageferryPeer.RunSource(image, int.Parse(mebibytes), Enum.Parse<GuestBacking>(backing), certificates),
        ["peer-destination", var certificates] => PageferryPeer.RunDestination(certificates),
        ["local-fault-once", var pages] => LocalFault.RunOnce(ulong.Parse(pages)),
        ["remote-fault-once", var pages] => RemoteFault.RunOnce(ulong.Parse(pages), GuestBacking.Memfd, stride: 1),
        ["remote-fault-once", var pages, var backing, var stride] => RemoteFault.RunOnce(ulong.Parse(pages), Enum.Parse<GuestBacking>(backing), ulong.Parse(stride)),
        ["page-sizes-once", var guest, var kind] => PageSizes.RunOnce(guest, kind),
        ["background-fill-once", var mebibytes, var backing] => BackgroundFill.RunOnce(ulong.Parse(mebibytes), Enum.Parse<GuestBacking>(backing)),
        ["page-source", var kind, var port, var pages] => PageLink.RunSource(kind, int.Parse(port), ulong.Parse(pages)),
        _ => Usage(),
    };
}
catch (Exception failure)
{
    // Caught, so that what was started is ended: nothing unwinds where nobody catches.
    Console.Error.WriteLine(failure);
    return 1;
}

static int Rounds(string[] options) => options is [var rounds] ? int.Parse(rounds) : 7;

static int Usage()
{
    Console.Error.WriteLine("usage: Pageferry.Bench local-fault|remote-fault|background-fill|locator|arming|page-sizes [ROUNDS] | downtime|demand-paging|engine-restart|link-return PAGEFERRY [ROUNDS] | qemu QEMU [ROUNDS DOWNTIMES MEBIBYTES [PART]] | criu PAGEFERRY CRIU [ROUNDS REMOTE_ROUNDS MEBIBYTES] | arming-cycles USERFAULTS SEED | engine-memory | kernel-matrix RESULTS OUTPUT [DOCUMENT]");
    return 2;
}
