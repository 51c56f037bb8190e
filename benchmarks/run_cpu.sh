#!/usr/bin/env bash
# Speed of the CPU backend beside NumPy on one core: both run in turns, so that a busy machine slows both.
#
#   benchmarks/run_cpu.sh [ROUNDS] [CASE...]      default: 3 rounds of the cases that both have
#
# BENCH    the built bench_cpu (default: build/benchmarks/bench_cpu)
# PYTHON   a python3 with a NumPy that has a fast BLAS (default: python3)
# Prints one line per case: updates per second, share of the machine's limit, and ratios to both NumPy styles.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
bench=${BENCH:-$here/../build/benchmarks/bench_cpu}
python=${PYTHON:-python3}
rounds=${1:-3}
[ $# -eq 0 ] || shift
cases=("$@")
if [ ${#cases[@]} -eq 0 ]; then
    cases=(voter-1024 voter-4096 voter-10000 voter-moore-1024 voter-moore-4096 voter-5-options-4096 majority-1024
        majority-4096 majority-10000 majority-moore-1024 majority-moore-4096 neural-lattice neural-complete)
fi
if ! [ -x "$bench" ]; then
    printf 'run_cpu: there is no %s; build the target bench_cpu, or set BENCH\n' "$bench" >&2
    exit 3
fi
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
"$python" - <<'PYTHON' || exit 3
import sys
try:
    import numpy
except ImportError:
    sys.exit("run_cpu: this python has no numpy; set PYTHON")
print("numpy", numpy.__version__)
PYTHON
grep -m 1 'model name' /proc/cpuinfo || true

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for name in "${cases[@]}"; do
    for ((round = 0; round < rounds; round++)); do
        # The last core: the first one takes the interrupts.
        taskset -c "$(($(nproc) - 1))" "$bench" --repeats 5 "$name" 2>/dev/null | tee -a "$work/limits" | grep -v '^#' \
            >>"$work/quorate"
        for style in plain tuned; do
            taskset -c "$(($(nproc) - 1))" "$python" "$here/numpy_baseline.py" --style "$style" --repeats 5 "$name" \
                >>"$work/$style"
        done
    done
done
"$python" "$here/ratios.py" "$work"
