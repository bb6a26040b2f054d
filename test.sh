#!/usr/bin/env bash
# Installs what the tests need and is missing (Debian packages), builds Release, runs every test
# and closes with a line "N passed, N failed, N skipped". Exits with 0 only if nothing failed.
# Arguments are passed to `dotnet test`: ./test.sh --filter-class '*PageStates*'
set -euo pipefail
cd "$(dirname "$0")"

# gcc compiles the programs that pin our constants to the kernel's headers, and links NativeAOT. QEMU and what follows it boot another kernel.
# ip and tc make networks of two hosts. Redis is moved by CRIU, which locks its network by nftables. systemd
# starts a holder anew, in namespaces of its own.
packages=()
command -v gcc >/dev/null || packages+=(gcc libc6-dev)
[ -e /usr/include/linux/kvm.h ] || packages+=(linux-libc-dev)
[ -e /usr/include/zlib.h ] || packages+=(zlib1g-dev)
command -v qemu-system-x86_64 >/dev/null || packages+=(qemu-system-x86 seabios)
command -v busybox >/dev/null || packages+=(busybox-static)
command -v cpio >/dev/null || packages+=(cpio)
command -v xz >/dev/null || packages+=(xz-utils)
{ command -v ip && command -v tc; } >/dev/null || packages+=(iproute2)
command -v redis-server >/dev/null || packages+=(redis-server)
command -v redis-cli >/dev/null || packages+=(redis-tools)
command -v nft >/dev/null || packages+=(nftables)
[ -e /usr/lib/systemd/systemd ] || packages+=(systemd)
if [ "${#packages[@]}" -gt 0 ]; then
  echo "Installing ${packages[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
fi

# Not installed: kept in a folder of their own.
eng/get-criu.sh

dotnet build --configuration Release --nologo -v quiet Pageferry.slnx

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
# One test project at a time: they measure time. A project in which a filter finds nothing (exit code 8) is no failure.
dotnet test --solution Pageferry.slnx --configuration Release --no-build --no-progress --max-parallel-test-modules 1 --ignore-exit-code 8 "$@" 2>&1 | tee "$log" || status=$?

count() { sed -nE "s/^ *$1: *([0-9]+).*/\1/p" "$log" | tail -n 1; }
passed=$(count succeeded) failed=$(count failed) skipped=$(count skipped)
if [ -z "$passed" ]; then
  echo "The tests did not run to their end: see above." >&2
  exit 1
fi
grep -E '^skipped ' "$log" | sort -u || true
# Last, and not whole, so that they are seen also where only the end of a log is kept.
awk '
  function finish() {
    for (i = 1; i <= count; i++) if (i <= 30 || i > count - 15) print lines[i]; else if (i == 31) print "  ..."
    count = 0
  }
  /^[^ ]/ { finish(); inside = /^failed / }
  inside { lines[++count] = $0 }
  END { finish() }' "$log"
echo "$passed passed, $failed failed, $skipped skipped"
if [ "$skipped" -gt 0 ] && [ -e /dev/kvm ] && [ -e /dev/userfaultfd ]; then
  echo "This machine has KVM and userfaultfd: nothing may be skipped here." >&2
  status=1
fi
exit "$status"
