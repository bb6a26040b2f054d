#!/usr/bin/env bash
# Runs pageferry on Debian's stock kernels, in QEMU with nested SVM: see --help.
set -euo pipefail

usage() {
  cat <<'END'
usage: eng/kernel-matrix.sh [--kernel bookworm|trixie|sid|all] [--quick | --tests] [--output FILE]

Boots Debian's stock cloud kernels in QEMU's TCG with nested SVM, so with the KVM of AMD hardware, and runs there the
conformance cases, the demo over its backings, deliveries and privileges, and the demand paging benchmark.
Neither root nor /dev/kvm is needed. A kernel takes some minutes: TCG is slow, so times mean something only beside each other.

  --kernel NAME   bookworm (6.1), trixie (6.12), sid (the newest) or all; all without.
  --quick         Fewer demos and no benchmark. Only with --output.
  --tests         Only the tests of Pageferry.Kvm and Pageferry.Vmm, of which most need KVM; takes 10 GiB of memory. Only with --output.
  --output FILE   Where the results go; without, to bench/results/kernel-matrix.json and as a table to docs/semantics.md.
                  Results of kernels that are not run stay in the file.

Kernels are fetched with apt from the mirror of this machine, checked with its keys, never installed, and kept in
${XDG_CACHE_HOME:-~/.cache}/pageferry/kernels; remove a directory there to get the newest one again.

Ends with 0 if nothing failed, 1 if something failed, 2 for a wrong command line, 3 if something that it needs is missing.

Examples:
  eng/kernel-matrix.sh
  eng/kernel-matrix.sh --kernel sid
  eng/kernel-matrix.sh --quick --kernel trixie --output /tmp/trixie.json
  eng/kernel-matrix.sh --tests --kernel trixie --output /tmp/tests.json
END
}

wrong() { echo "kernel-matrix: $* See --help." >&2; exit 2; }
missing() { echo "kernel-matrix: $*" >&2; exit 3; }

kernels=(bookworm trixie sid) quick= tests= output=
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage; exit 0 ;;
    --quick) quick=1; shift ;;
    --tests) tests=1; shift ;;
    --kernel | --output)
      [ $# -gt 1 ] && [ -n "$2" ] || wrong "$1 needs a value."
      case $1:$2 in
        --kernel:all) ;;
        --kernel:bookworm | --kernel:trixie | --kernel:sid) kernels=("$2") ;;
        --kernel:*) wrong "--kernel '$2' is not in the matrix: bookworm, trixie, sid or all." ;;
        --output:*) output=$(realpath -m "$2") ;;
      esac
      shift 2 ;;
    *) wrong "'$1' is not an option." ;;
  esac
done
[ -z "$quick" ] || [ -n "$output" ] || wrong "--quick runs too little to be stored with the project: give it an --output."
[ -z "$tests" ] || [ -n "$output" ] || wrong "--tests is no part of what is stored with the project: give it an --output."
[ -z "$quick" ] || [ -z "$tests" ] || wrong "--quick and --tests exclude each other."

cd "$(dirname "$0")/.."

# What a step may take, in seconds, several times what it takes where nothing else runs; how long a machine may finish none.
# And what the machine is made of.
silence_limit=360 step_limit=120 conformance_limit=300
memory_mib=2048 huge_pages=160
test_projects=(Pageferry.Kvm.Tests Pageferry.Vmm.Tests)
[ -z "$tests" ] || silence_limit=1000 step_limit=900 memory_mib=8192

need() { command -v "$1" >/dev/null || missing "$1 is missing. Install it: apt-get install $2"; }
need busybox busybox-static
need cpio cpio
need xz xz-utils
need apt-get apt
need dpkg-deb dpkg
need gcc 'gcc libc6-dev zlib1g-dev'
need dotnet 'dotnet-sdk-10.0 (or see https://dot.net)'
busybox=$(command -v busybox)
grep -qx insmod <<<"$("$busybox" --list)" || missing "$busybox has no insmod. Install the one that has: apt-get install busybox-static"

# The newest: QEMU 7.2 executes old code where a kernel has just changed it on another CPU (int3 in __schedule, at a static key that KVM turns with each
# machine), and makes nested page faults at the address of the host's own page table, so that KVM emulates that vCPU for ever. The newest did neither.
emulator=$(eng/get-qemu.sh) || missing 'there is no QEMU. Install it: apt-get install qemu-system-x86 seabios'

work=$(mktemp -d)
qemu=
end() {
  [ -z "$qemu" ] || kill "$qemu" 2>/dev/null || true
  rm -rf "$work"
}
trap end EXIT
trap 'exit 130' INT TERM
cache=${XDG_CACHE_HOME:-$HOME/.cache}/pageferry/kernels
mkdir -p "$cache"

# Emulated CPUs take all the real ones: a second run would only make both run into their limits.
exec 9>"$cache/.lock"
flock --nonblock 9 || { echo "kernel-matrix: waits for another run to end" >&2; flock 9; }

# Leaves vmlinuz, release and the modules of a suite's kernel in the cache.
fetch_kernel() {
  local suite=$1 new=$work/fetch-$1 mirror image version package packages=()
  [ ! -f "$cache/$suite/vmlinuz" ] || return 0
  mirror=$(apt-get indextargets --format '$(REPO_URI)' | sed '/security/d' | sort -u | sed -n 1p)
  [ -n "$mirror" ] || missing "apt has no mirror to fetch the kernel of $suite from. Add a Debian mirror to /etc/apt/sources.list."
  echo "kernel-matrix: fetches the kernel of $suite" >&2
  mkdir -p "$new"/{lists/partial,cache/archives/partial,debs,root,kernel}
  : >"$new/status"
  echo "deb $mirror $suite main" >"$new/sources.list"
  local apt=(-qq -o "Dir::Etc::SourceList=$new/sources.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$new/lists"
    -o "Dir::State::status=$new/status" -o "Dir::Cache=$new/cache" -o APT::Architecture=amd64 -o "APT::Sandbox::User=$(id -un)"
    -o Acquire::Languages=none -o Acquire::Retries=2)
  apt-get "${apt[@]}" --error-on=any update >"$work/apt.log" 2>&1 ||
    missing "the list of packages of $suite could not be fetched from $mirror: $(tail -n 2 "$work/apt.log" | tr '\n' ' ')"
  image=$(apt-cache "${apt[@]}" depends --important linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | sed -n 1p) || true
  [ -n "$image" ] || missing "$mirror has no linux-image-cloud-amd64 in $suite: it is no mirror of Debian."
  version=${image#linux-image-}

  # In one package up to trixie, in several since.
  packages=("$image")
  for package in $(apt-cache "${apt[@]}" depends --important "$image" | sed -n "s/^ *Depends: \(linux-.*-$version\)\$/\1/p"); do packages+=("$package"); done
  (cd "$new/debs" && apt-get "${apt[@]}" download "${packages[@]}" >"$work/apt.log" 2>&1) ||
    missing "${packages[*]} of $suite could not be fetched from $mirror: $(tail -n 2 "$work/apt.log" | tr '\n' ' ')"
  for package in "$new"/debs/*.deb; do dpkg-deb -x "$package" "$new/root"; done
  cp "$(find "$new/root" -name 'vmlinuz*' -type f -print -quit)" "$new/kernel/vmlinuz"
  echo "$version" >"$new/kernel/release"
  local module file
  for module in irqbypass ccp kvm kvm-amd; do
    # Where it is built in there is no file.
    file=$(find "$new/root" -name "$module.ko" -o -name "$module.ko.xz" | sed -n 1p)
    case $file in
      *.xz) xz -dc "$file" >"$new/kernel/$module.ko" ;;
      ?*) cp "$file" "$new/kernel/$module.ko" ;;
    esac
  done
  rm -rf "${cache:?}/$suite"
  mv "$new/kernel" "$cache/$suite"
  rm -rf "$new"
}

publish() {
  local binary=artifacts/native/pageferry
  [ ! -x "$binary" ] ||
    [ -n "$(find src Directory.*.props -newer "$binary" -name '*.*s*' -type f -not -path '*/obj/*' -not -path '*/bin/*' -print -quit)" ] || return 0
  echo "kernel-matrix: publishes the command" >&2
  dotnet publish src/Pageferry.Cli -c Release -o artifacts/native --nologo -v quiet >&2

  # What did not change is not written again; say that it was looked at.
  touch "$binary"
}

# offers COMMAND OPTION [WORD]: whether the command's help names the option, and the word in what it says about it.
offers() {
  local help
  help=$(artifacts/native/pageferry $1 --help 2>/dev/null) || return 1
  awk -v option="$2" '
    /^  -/ { inside = 0; for (i = 1; i <= NF; i++) if ($i == option || $i == option ",") inside = 1 }
    /^$/ { inside = 0 }
    inside' <<<"$help" | tr -s ' ,.:;()[]' '\n' | grep -x -e "${3:-$2}" >/dev/null
}

# What the kernels are asked to do: a line for each step, "name|seconds|command".
plan() {
  if [ -z "$tests" ]; then plan_commands; return; fi
  local project
  echo "doctor|$step_limit|pageferry doctor --json"

  # There is no compiler.
  for project in "${test_projects[@]}"; do
    echo "tests $project|$step_limit|dotnet /tests/$project/$project.dll --progress off --no-ansi --filter-not-trait Needs=gcc"
  done
}

plan_commands() {
  local backing delivery privilege vcpus guest
  local backings=() deliveries=() privileges=()
  for backing in memfd anonymous memfd-2m; do
    if offers demo --backing "$backing"; then backings+=("$backing"); else absent+=("demo --backing $backing"); fi
  done
  for delivery in queue exit; do
    if offers demo --delivery "$delivery"; then deliveries+=("$delivery"); else absent+=("demo --delivery $delivery"); fi
  done
  for privilege in user kernel; do
    if offers demo --privilege "$privilege"; then privileges+=("$privilege"); else absent+=("demo --privilege $privilege"); fi
  done

  echo "doctor|$step_limit|pageferry doctor --json"
  echo "conformance|$conformance_limit|pageferry conformance --json"
  for delivery in "${deliveries[@]:-}"; do
    for privilege in "${privileges[@]:-}"; do
      for backing in "${backings[@]}"; do
        for vcpus in 1 2; do
          # With two vCPUs the guest goes over its memory at random. Quick is one demo of each backing and delivery, at CPL 3.
          guest=stamp
          [ "$vcpus" = 1 ] || guest=random
          case $quick:$privilege:$backing:$vcpus in
            1:kernel:* | 1:*:memfd:2 | 1:*:anonymous:1 | 1:*:memfd-2m:2) continue ;;
          esac
          echo "demo $backing${delivery:+ $delivery}${privilege:+ $privilege}, $vcpus vCPU$([ "$vcpus" = 1 ] || echo s)|$step_limit|pageferry demo --json --host kvm --memory 64M --guest $guest --vcpus $vcpus --backing $backing${delivery:+ --delivery $delivery}${privilege:+ --privilege $privilege}"
        done
      done
    done
  done
  # Rounds before the guest goes, as long as they converge: what it wrote meanwhile is told by KVM. A page that is not told is wrong at the end.
  local tracking
  for tracking in ring log; do
    if ! offers demo --dirty-tracking "$tracking"; then
      absent+=("demo --dirty-tracking $tracking")
    elif [ -z "$quick" ] || [ "$tracking" = ring ]; then
      echo "demo memfd auto mode, dirty $tracking, 2 vCPUs|$step_limit|pageferry demo --json --host kvm --memory 64M --vcpus 2 --mode auto --dirty-tracking $tracking"
    fi
  done
  if ! offers 'bench demand-paging' --compare; then
    absent+=('bench demand-paging --compare')
  elif [ -z "$quick" ]; then
    for backing in memfd anonymous memfd-2m; do
      ! offers 'bench demand-paging' --backing "$backing" || echo "bench demand-paging $backing|$step_limit|pageferry bench demand-paging --compare --json --bytes 4M --backing $backing"
    done
  fi
}

# Adds the libraries that programs link.
add_libraries() {
  local root=$1 library
  shift
  ldd "$@" 2>/dev/null | grep -o '/[^ ]*[^: ]' | sort -u | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    [ -e "$root$library" ] || cp -L "$library" "$root$library"
  done
}

# Adds .NET's runtime and the tests.
add_tests() {
  local root=$1 runtime project library programs
  runtime=$(dirname "$(realpath "$(command -v dotnet)")")
  mkdir -p "$root/dotnet/shared" "$root/tests" "$root/etc"
  echo 'root:x:0:0::/:/bin/sh' >"$root/etc/passwd" # the tests' runner asks who it is
  cp -r "$runtime/dotnet" "$runtime/host" "$root/dotnet/"
  cp -r "$runtime/shared/Microsoft.NETCore.App" "$root/dotnet/shared/"
  for project in "${test_projects[@]}"; do cp -r "tests/$project/bin/Release/net10.0" "$root/tests/$project"; done
  mapfile -t programs < <(find "$root/dotnet" -name dotnet -type f -o -name '*.so')

  # Loaded by name.
  mapfile -t -O "${#programs[@]}" programs < <(PATH=$PATH:/sbin ldconfig -p | sed -n 's/.*libssl\.so\.[0-9].* => //p')
  add_libraries "$root" "${programs[@]}"
  for library in "${programs[@]}"; do
    case $library in "$root"*) ;; *) mkdir -p "$root$(dirname "$library")"; cp -L "$library" "$root$library" ;; esac
  done
}

# Boots a kernel with everything it needs in its initramfs, and lets it go through a plan whose lines have their numbers before them.
# Each step's results come out of its second serial port as an archive.
boot() {
  local suite=$1 plan=$2 root=$work/root results=$work/results/$1 grown=$SECONDS size=0 now
  mkdir -p "$root"/{bin,modules,proc,sys,dev,tmp,results}
  cp "$busybox" "$root/bin/busybox"
  cp "$cache/$suite"/*.ko "$root/modules/"
  cp artifacts/native/pageferry "$root/bin/"
  add_libraries "$root" artifacts/native/pageferry
  [ -z "$tests" ] || add_tests "$root"
  cp "$plan" "$root/plan"
  cat >"$root/init" <<END
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/dotnet HOME=/tmp DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm
mount -t tmpfs tmp /tmp
mount -t tmpfs shm /dev/shm
for module in irqbypass ccp kvm kvm-amd; do [ ! -f /modules/\$module.ko ] || insmod /modules/\$module.ko; done
ip link set lo up
echo $huge_pages >/proc/sys/vm/nr_hugepages
stty -F /dev/ttyS1 raw -echo
END
  cat >>"$root/init" <<'END'
hand_over() { tar -c -C /results "$1" >/dev/ttyS1; rm -rf "/results/$1"; }
mkdir /results/kernel
uname -r >/results/kernel/release
uname -v >/results/kernel/version
hand_over kernel
while IFS='|' read -r number name limit command; do
  step=/results/$number
  mkdir $step
  begin=$(cut -d' ' -f1 /proc/uptime)
  timeout -s KILL $limit $command >$step/output 2>$step/errors </dev/null
  echo $? >$step/exit
  end=$(cut -d' ' -f1 /proc/uptime)
  awk "BEGIN { printf \"%.1f\\n\", $end - $begin }" >$step/seconds
  echo "$name: exit status $(cat $step/exit), $(cat $step/seconds) s"
  hand_over $number
done </plan
poweroff -f
END
  chmod +x "$root/init"
  (cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) >"$work/initramfs"
  rm -rf "$root"

  echo "kernel-matrix: boots $(cat "$cache/$suite/release") for $(wc -l <"$plan") steps" >&2
  : >"$work/archives"
  "$emulator" -accel tcg,thread=multi -cpu max -smp 2 -m "$memory_mib" -display none -nodefaults -no-reboot \
    -serial "file:$work/console" -serial "file:$work/archives" \
    -kernel "$cache/$suite/vmlinuz" -initrd "$work/initramfs" -append 'console=ttyS0 loglevel=2 panic=-1' </dev/null >&2 &
  qemu=$!
  while kill -0 "$qemu" 2>/dev/null; do
    sleep 1
    now=$(stat -c %s "$work/archives")
    [ "$now" = "$size" ] || { size=$now grown=$SECONDS; }
    [ $((SECONDS - grown)) -lt "$silence_limit" ] || { echo "kernel-matrix: the machine has finished nothing for $silence_limit s and is ended" >&2; break; }
  done
  kill "$qemu" 2>/dev/null || true
  # What it wrote until it ended counts, so how it ended is no reason to stop here.
  wait "$qemu" || true
  qemu=

  # Each step is an archive of its own, one after the other; the last may have been broken off.
  tar -x -i -f "$work/archives" -C "$results" 2>/dev/null || true
  sed 's/^/  /' "$work/console" >&2
}

# Whether it was the triple fault of a guest that ended a step, and nothing else that was wrong in it.
shut_down() {
  local shutdown='Shutdown (exit reason 8' failures
  ! grep -qs "$shutdown" "$1/errors" || return 0
  failures=$(grep -cs '"outcome": "fail"' "$1/output") || return 1
  [ "$failures" = "$(grep -cs "\"detail\": .*$shutdown" "$1/output")" ]
}

# Now and then a guest ends with a triple fault under the emulated SVM, or the whole machine does, by a triple fault or a panic: seen on 6.1, 6.12 and 7.2.
# The emulation is suspected.
# Steps that this ended, and those that it left undone, are run again, twice at most; what was found before is kept as NUMBER.TRY and told in the results.
# Nothing else is run again: not a page that was wrong, not a failure of any other kind.
run_kernel() {
  local suite=$1 results=$work/results/$1 begin=$SECONDS try number line reached
  mkdir -p "$results"
  cp "$work/plan" "$results/plan"
  for try in 1 2 3; do
    number=0 reached=
    : >"$work/steps"
    while IFS= read -r line; do
      number=$((number + 1))
      if [ -f "$results/$number/exit" ]; then
        shut_down "$results/$number" || continue
        mv "$results/$number" "$results/$number.$((try - 1))"
      elif [ "$try" -gt 1 ] && [ -z "$reached" ]; then
        reached=$number
        rm -rf "${results:?}/$number"
        mkdir "$results/$number.$((try - 1))"
        { echo "the machine ended in it"; grep -o 'Kernel panic.*' "$work/console" || true; } | paste -s -d ':' | sed 's/:/: /' | tr -d '\r' >"$results/$number.$((try - 1))/errors"
      fi
      echo "$number|$line" >>"$work/steps"
    done <"$work/plan"
    [ -s "$work/steps" ] || break
    boot "$suite" "$work/steps"
  done
  [ -f "$results/kernel/release" ] || { echo "kernel-matrix: the kernel of $suite did not come up; its console is above." >&2; exit 1; }
  echo "$((SECONDS - begin))" >"$results/seconds"
}

for kernel in "${kernels[@]}"; do fetch_kernel "$kernel"; done
publish
if [ -n "$tests" ]; then
  echo "kernel-matrix: builds the tests" >&2
  for project in "${test_projects[@]}"; do dotnet build "tests/$project" -c Release --nologo -v quiet >&2; done
fi
absent=()
plan >"$work/plan"
[ "${#absent[@]}" = 0 ] || printf 'kernel-matrix: not in this version: %s\n' "${absent[@]}" >&2
for kernel in "${kernels[@]}"; do run_kernel "$kernel"; done

table=()
if [ -z "$output" ]; then
  output=bench/results/kernel-matrix.json
  table=(docs/semantics.md)
fi
dotnet run -c Release --project bench/Pageferry.Bench -v quiet -- kernel-matrix "$work/results" "$output" "${table[@]}"
