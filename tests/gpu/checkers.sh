#!/usr/bin/env bash
# The GPU tests of one process under compute-sanitizer: memory (memcheck) and shared memory (racecheck), on a fraction of
# the cases, as the tools make kernels tens of times slower.
#
#   tests/gpu/checkers.sh [BUILD]
#
# BUILD: a build folder with QUORATE_TESTS=ON (default: build). Exit code 1 where a tool finds something or a test fails.
# Errors that CUDA calls return are not findings: NCCL asks for kernels that may not be there, and a test asks for more
# memory than there is.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=${1:-$root/build}
failed=0

# check TOOL PROGRAM CASES [TESTS]: TESTS is a pattern of names, with * for any characters.
check() {
    local tool=$1 program=$2 cases=$3 pattern=${4:-*} code=0 started=$SECONDS
    QUORATE_GPU_CASES=$cases QUORATE_GPU_TESTS=$pattern timeout 300 compute-sanitizer --tool "$tool" --report-api-errors no \
        --error-exitcode 9 "$build/tests/$program" >"$build/checker.log" 2>&1 || code=$?
    if [ "$code" -eq 0 ]; then
        printf 'ok      %s, %s, %s (%d s)\n' "$tool" "$program" "$pattern" $((SECONDS - started))
        return
    fi
    failed=1
    printf 'FAILED  %s, %s, %s (exit code %d, %d s)\n' "$tool" "$program" "$pattern" "$code" $((SECONDS - started))
    tail -n 40 "$build/checker.log"
}

command -v compute-sanitizer >/dev/null || {
    echo "skipped: compute-sanitizer is not installed (it comes with the CUDA Toolkit)"
    exit 77
}
check memcheck gpu_test_frames 6
check memcheck gpu_test_cuda 54
check racecheck gpu_test_frames 2 'any_order*'
check racecheck gpu_test_cuda 18 '*step*'
check racecheck gpu_test_cuda 18 'batches*'
check racecheck gpu_test_cuda 18 'quick*'
check racecheck gpu_test_cuda 18 'updates*'
check racecheck gpu_test_cuda 18 'graphs*'
check racecheck gpu_test_cuda 18 'many*'
check racecheck gpu_test_cuda 5 'large*'
check racecheck gpu_test_frames 2 'fast*'
exit "$failed"
