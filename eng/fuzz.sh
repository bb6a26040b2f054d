#!/usr/bin/env bash
# Fuzzes one reader of others' bytes under AFL++, for as long as is asked: eng/fuzz.sh TARGET SECONDS
# Without arguments it lists the targets. What AFL++ finds stays in artifacts/fuzz/TARGET; a second run goes on from there.
# `dotnet run -c Release --project tests/Pageferry.Fuzz -- run TARGET SECONDS` does it without AFL++, blindly but faster.
set -euo pipefail
cd "$(dirname "$0")/.."

project=tests/Pageferry.Fuzz
if [ "$#" -ne 2 ]; then
  dotnet run --configuration Release --project "$project" -- list
  exit 2
fi

target=$1 seconds=$2
command -v afl-fuzz >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends afl++; }
[ -x artifacts/tools/sharpfuzz ] || dotnet tool install SharpFuzz.CommandLine --version 2.3.0 --tool-path artifacts/tools

build=artifacts/fuzz/bin
rm -rf "$build"
dotnet build --configuration Release --nologo -v quiet --output "$build" "$project"
for library in Linux Memory Kvm Vmm Migration Snapshots Criu; do
  artifacts/tools/sharpfuzz "$build/Pageferry.$library.dll"
done
artifacts/tools/sharpfuzz "$build/pageferry.dll"
artifacts/tools/sharpfuzz "$build/K4os.Compression.LZ4.dll"
artifacts/tools/sharpfuzz "$build/ZstdSharp.dll"

# What is instrumented runs under AFL++ only. The .NET runtime is no binary of AFL's and takes memory as it likes; the core pattern and the governor are none of this script's business.
found=artifacts/fuzz/$target
seeds=$build/corpus/$target
[ -d "$found/default" ] && seeds=-
export AFL_SKIP_BIN_CHECK=1 AFL_SKIP_CPUFREQ=1 AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1 AFL_NO_UI=1
afl-fuzz -i "$seeds" -o "$found" -V "$seconds" -t 10000 -m none -- dotnet "$build/Pageferry.Fuzz.dll" afl "$target"
crashes=$(find "$found/default/crashes" "$found/default/hangs" -type f -name 'id:*' | wc -l)
echo "$target: $(sed -nE 's/^execs_done *: *//p' "$found/default/fuzzer_stats") messages, $crashes that broke it (read one: dotnet run -c Release --project $project -- read $target FILE)"
[ "$crashes" -eq 0 ]
