#!/usr/bin/env bash
# Speed of the CUDA backend on one GPU beside the limits of that GPU, as a table for RESULTS.md.
#
#   benchmarks/run_cuda.sh [CASE...]      default: the cases that bench_cuda runs by itself; `bench_cuda list` names all
#
# BENCH    the built bench_cuda (default: build/benchmarks/bench_cuda)
# Exit code 77 where there is no GPU, 3 where a case failed; the lines of the others are still printed.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
bench=${BENCH:-$here/../build/benchmarks/bench_cuda}
if ! [ -x "$bench" ]; then
    printf 'run_cuda: there is no %s; build the target bench_cuda, or set BENCH\n' "$bench" >&2
    exit 3
fi

lines=$(mktemp)
trap 'rm -f "$lines"' EXIT
code=0
"$bench" "$@" >"$lines" || code=$?
[ "$code" -ne 77 ] || exit 77

date -u +'%Y-%m-%d %H:%M UTC'
nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv,noheader 2>/dev/null || true
grep '^#' "$lines" | grep -v '^# case' || true
printf '\n| case | agents | what | p50 | p99 | limit | p50 of limit | limit is |\n|---|---|---|---|---|---|---|---|\n'
awk -F '\t' '!/^#/ { printf "| %s | %s | %s | %s | %s | %s | %s | %s |\n", $1, $2, $3, $4, $5, $6, $7, $8 }' "$lines"
exit "$code"
