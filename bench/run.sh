#!/bin/sh
# Publishes the command and the benchmarks as native binaries, then runs the benchmarks named, or all but qemu and criu, which get a QEMU and a CRIU to run beside.
# Results go to bench/results.
# usage: bench/run.sh [NAME...]
set -eu
cd "$(dirname "$0")/.."
dotnet publish src/Pageferry.Cli -c Release -o artifacts/native --nologo -v quiet
dotnet publish bench/Pageferry.Bench -c Release -o artifacts/bench --nologo -v quiet
[ $# -gt 0 ] || set -- local-fault remote-fault background-fill downtime engine-memory engine-restart link-return locator arming demand-paging page-sizes
for name; do
    case $name in
        downtime|demand-paging|engine-restart|link-return) artifacts/bench/Pageferry.Bench "$name" artifacts/native/pageferry ;;
        qemu)
            # For the raw TLS stream.
            [ -f /usr/include/openssl/ssl.h ] || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libssl-dev
            artifacts/bench/Pageferry.Bench qemu "$(eng/get-qemu.sh)" ;;
        criu) artifacts/bench/Pageferry.Bench criu artifacts/native/pageferry "$(eng/get-criu.sh | tail -n 1)" ;;
        *) artifacts/bench/Pageferry.Bench "$name" ;;
    esac
done
