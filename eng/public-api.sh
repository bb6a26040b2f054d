#!/bin/sh
# Writes a library's public surface anew after a change of it: eng/public-api.sh Pageferry.Vmm
set -eu
cd "$(dirname "$0")/../src/${1:?usage: eng/public-api.sh PROJECT}"
echo '#nullable enable' > PublicAPI.Unshipped.txt
dotnet format analyzers . --diagnostics RS0016 --severity info --no-restore
