#!/usr/bin/env bash
# Counts the unsafe blocks, and the types and members that are unsafe as a whole, that no SAFETY comment stands above. The count has to be 0. Interop is all declarations.
set -euo pipefail
cd "$(dirname "$0")/.."

git ls-files -co --exclude-standard '*.cs' | grep -v '/Interop/' | xargs awk '
  FNR == 1 { safety = 0 }
  /\/\/ SAFETY:/ { safety = FNR }
  # A comment covers the block on the line below it, however many lines of comment there are.
  safety && FNR == safety + 1 && /^[[:space:]]*\/\// { safety = FNR }
  /^[[:space:]]*unsafe[[:space:]]*(\{.*)?$/ || /^[[:space:]]*((public|private|protected|internal|file|static|sealed|readonly|partial|new|override) )+unsafe / {
    blocks++
    if (!safety || FNR > safety + 1) { print FILENAME ":" FNR ": unsafe without a SAFETY comment above it"; missing++ }
  }
  END { print blocks + 0 " unsafe, " missing + 0 " without a SAFETY comment"; exit missing > 0 }'
