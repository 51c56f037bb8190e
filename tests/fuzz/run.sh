#!/usr/bin/env bash
# run.sh [SECONDS [NAME...]]: builds every fuzzer here (fuzz_NAME.c) with clang, libFuzzer, ASan and UBSan, replays its
# seeds (NAME_corpus/) and fuzzes for SECONDS each (default 600). What it finds stays in build-fuzz/NAME/; inputs that
# broke something lie in build-fuzz/NAME/artifacts/. Exit code 77 where there is no clang with libFuzzer.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
seconds=${1:-600}
build=${FUZZ_BUILD_DIR:-$root/build-fuzz}
if [ $# -gt 0 ]; then
    shift
fi
if ! [[ $seconds =~ ^[0-9]+$ ]]; then
    echo "usage: run.sh [SECONDS [NAME...]]" >&2
    exit 2
fi

probe=$(mktemp)
trap 'rm -f "$probe"' EXIT
if ! echo 'int LLVMFuzzerTestOneInput(const char *d, long n) { return d == 0 && n > 0 ? -1 : 0; }' |
    clang -x c -fsanitize=fuzzer,address,undefined -o "$probe" - 2>/dev/null; then
    echo "skipped: no clang with libFuzzer"
    exit 77
fi

cmake -S "$root" -B "$build" -G Ninja -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=RelWithDebInfo -DQUORATE_FUZZ=ON \
    -DQUORATE_SANITIZE=fuzzer-no-link,address,undefined >/dev/null
cmake --build "$build" --parallel "$(nproc)" --target fuzzers

names=("$@")
if [ ${#names[@]} -eq 0 ]; then
    for source in "$here"/fuzz_*.c; do
        name=$(basename "$source" .c)
        names+=("${name#fuzz_}")
    done
fi

# one NAME: replays its seeds and fuzzes it.
one() {
    local name=$1 fuzzer=$build/tests/fuzz_$1 found=$build/$1 status=0 executions options
    local log=$found/log.txt
    mkdir -p "$found/corpus" "$found/artifacts"
    options=(-timeout=10 -rss_limit_mb=2048 "-artifact_prefix=$found/artifacts/" -print_final_stats=1)
    if [ -f "$here/$name.dict" ]; then
        options+=("-dict=$here/$name.dict")
    fi
    "$fuzzer" "${options[@]}" -runs=0 "$here/${name}_corpus" >"$log" 2>&1 || status=$?
    if [ "$status" -eq 0 ] && [ "$seconds" -gt 0 ]; then
        timeout $((seconds + 60)) "$fuzzer" "${options[@]}" -max_len=4096 "-max_total_time=$seconds" "$found/corpus" \
            "$here/${name}_corpus" >"$log" 2>&1 </dev/null || status=$?
    fi
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    if [ "$status" -eq 0 ]; then
        echo "$name: ${executions:-0} executions, 0 crashes"
    else
        tail -n 40 "$log"
        echo "$name: FAILED after ${executions:-?} executions (exit $status); see $found/artifacts"
        return 1
    fi
}

# As many at a time as there are cores.
export -f one
export here build seconds
# shellcheck disable=SC2016  # expanded by the inner shell
printf '%s\0' "${names[@]}" | xargs -0 -n 1 -P "$(nproc)" bash -c 'one "$1"' one
