#!/usr/bin/env bash
# Counts the unsafe blocks that no SAFETY comment stands above. The count has to be 0.
set -euo pipefail
cd "$(dirname "$0")/.."

git ls-files -co --exclude-standard '*.cs' | xargs awk '
  FNR == 1 { safety = 0 }
  /\/\/ SAFETY:/ { safety = FNR }
  # A comment covers the block on the line below it, however many lines of comment there are.
  safety && FNR == safety + 1 && /^[[:space:]]*\/\// { safety = FNR }
  /^[[:space:]]*unsafe[[:space:]]*(\{.*)?$/ {
    blocks++
    if (!safety || FNR > safety + 1) { print FILENAME ":" FNR ": unsafe block without a SAFETY comment above it"; missing++ }
  }
  END { print blocks + 0 " unsafe blocks, " missing + 0 " without a SAFETY comment"; exit missing > 0 }'
