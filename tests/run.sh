#!/usr/bin/env bash
# shellcheck disable=SC2317  # stages are called by name
# Installs packages, builds, runs every test.
#
#   tests/run.sh [STAGE...]
#
#   packages   installs what is missing
#   build      gcc, release; warnings are errors
#   tests      everything under tests/, by ctest
#   clang      clang with the address and undefined-behaviour sanitizers; warnings are errors
#   sanitize   the unit, property and cli tests in that build (scripts of ours have no sanitizer)
#   tidy       clang-tidy; with the tests asked for, too, it begins beside them
#   scripts    shellcheck and Python's compiler
#   valgrind   a short run
#   fuzz       a short replay of the corpora and some seconds of fuzzing
#
# No stage = all, in this order; under 15 minutes on 2 cores. Nothing that is up to date is built or linted again.
# QUORATE_JOBS: parallel jobs (default: the cores). The last line counts tests; exit code 1 when one failed.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 3
# shellcheck source=SCRIPTDIR/../jobscripts/lib.sh
. jobscripts/lib.sh

all_stages=(packages build tests clang sanitize tidy scripts valgrind fuzz)
[ $# -gt 0 ] || set -- "${all_stages[@]}"
for stage; do
    case " ${all_stages[*]} " in
    *" $stage "*) ;;
    *)
        printf "no stage '%s'; stages: %s\n" "$stage" "${all_stages[*]}" >&2
        exit 2
        ;;
    esac
done

lints=no
case " $* " in
*" tidy "*) lints=yes ;;
esac
build=$root/build
clang_build=$root/build/clang
logs=$root/build/logs
mkdir -p "$logs"
jobs=${QUORATE_JOBS:-$(count_cores)}
passed=0
failed=0
skipped=0
failures=()

# All output of a test run goes to temporary folders of its own, removed at the end.
# In memory where there is some: what a test loses is gone all the same, and a disk that others keep busy makes none wait.
memory=/dev/shm
if [ -z "${TMPDIR:-}" ] && [ -w "$memory" ] && [ "$(df --output=avail -k "$memory" | tail -n 1)" -gt 4000000 ]; then
    export TMPDIR=$memory
fi
scratch=$(mktemp -d)
export TMPDIR=$scratch
trap 'rm -rf "$scratch"; [ -z "${tidy_process:-}" ] || kill "$tidy_process"' EXIT
trap 'exit 130' INT TERM HUP

# count NAME STATUS: one test with its exit status; 77 is skipped.
count() {
    case $2 in
    0)
        passed=$((passed + 1))
        printf 'ok      %s\n' "$1"
        ;;
    77)
        skipped=$((skipped + 1))
        printf 'skipped %s\n' "$1"
        ;;
    *)
        failed=$((failed + 1))
        failures+=("$1")
        printf 'FAILED  %s\n' "$1"
        ;;
    esac
}

finish() {
    if [ ${#failures[@]} -gt 0 ]; then
        printf '\nfailed:\n'
        printf '  %s\n' "${failures[@]}"
    fi
    printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
    [ "$failed" -eq 0 ] || exit 1
    [ "$passed" -gt 0 ] || exit 1
    exit 0
}

# run_ctest PREFIX BUILD CTEST_ARGUMENT...: adds ctest's tests to the count, each by its name. Half of them mostly wait: those
# that compute take two places each (tests/CMakeLists.txt).
run_ctest() {
    local prefix=$1 folder=$2 report=$scratch/ctest.xml name state
    shift 2
    rm -f "$report"
    ctest --test-dir "$folder" -j $((2 * jobs)) --output-on-failure --no-tests=error --output-junit "$report" "$@" </dev/null
    if ! [ -s "$report" ]; then
        count "${prefix}ctest" 1
        return
    fi
    # <testcase name="unit.test_x" classname="unit.test_x" time="0.1" status="run|fail|notrun|disabled">
    while read -r name state; do
        case $state in
        run) passed=$((passed + 1)) ;;
        disabled) skipped=$((skipped + 1)) ;;
        notrun)
            # ctest says so both of tests that skip themselves and of programs it could not start.
            if sed -n "/<testcase name=\"$name\"/,/<\/testcase>/p" "$report" | grep -q 'SKIP_'; then
                skipped=$((skipped + 1))
            else
                failed=$((failed + 1))
                failures+=("$prefix$name (not run)")
            fi
            ;;
        *)
            failed=$((failed + 1))
            failures+=("$prefix$name")
            ;;
        esac
    done < <(sed -n 's/.*<testcase name="\([^"]*\)".* status="\([a-z]*\)".*/\1 \2/p' "$report")
}

stage_packages() {
    jobscripts/install_packages.sh build plot test || {
        count packages 1
        finish
    }
    set_mpi_environment "$jobs"
}

stage_build() {
    local status=0
    configure_and_build "$root" "$build" "$logs/build.log" -DQUORATE_TESTS=ON -- || status=$?
    count "build with gcc" "$status"
    [ "$status" -eq 0 ] || finish
}

stage_tests() {
    if [ "$lints" = yes ]; then
        configure_clang >"$logs/clang.log" 2>&1 && tidy_begin
    fi
    run_ctest "" "$build"
}

clang_options=(-DCMAKE_C_COMPILER=clang -DQUORATE_TESTS=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo
    "-DQUORATE_SANITIZE=address,undefined")
configure_clang() {
    cmake -S "$root" -B "$clang_build" -G Ninja "${clang_options[@]}"
}

stage_clang() {
    local status=0
    configure_and_build "$root" "$clang_build" "$logs/clang.log" "${clang_options[@]}" -- || status=$?
    count "build with clang" "$status"
}

stage_sanitize() {
    if ! [ -x "$clang_build/quorate" ]; then
        count "tests under sanitizers (not built)" 1
        return
    fi
    # Leaks are looked for where no MPI library is started: it unloads its modules, so that nobody can tell their leaks from
    # ours (valgrind can; see that stage). Writers killed at every moment gain nothing from sanitizers, and take minutes;
    # an emulated processor has no room for the sanitizer's shadow memory.
    export UBSAN_OPTIONS=print_stacktrace=1
    ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 \
        LSAN_OPTIONS=suppressions=$root/tests/suppressions/lsan.txt:print_suppressions=0 \
        run_ctest "sanitizers: " "$clang_build" -L '^(unit|property)$' -E 'test_(io_kill|generation_kill|transfer|alarm)$'
    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
        run_ctest "sanitizers: " "$clang_build" -R '^(cli\.|unit\.test_(transfer|alarm))' -E 'test_(workstation|plot|processor)$'
}

# A file is linted again when it, a header, the checks or the compiler's options changed.
tidy_file() {
    local file=$1 stamp database=$clang_build
    stamp=$logs/tidy/$(printf '%s' "$file" | tr / _)
    if [ -e "$stamp" ] && [ "$stamp" -nt "$file" ] && [ "$stamp" -nt "$logs/tidy/headers" ]; then
        return 0
    fi
    # The CUDA backend is not built with sanitizers, and not at all where there is no CUDA.
    grep -qF "/$file\"" "$database/compile_commands.json" || database=$build
    if ! grep -qF "/$file\"" "$database/compile_commands.json"; then
        printf 'not linted, for want of what it needs to be built: %s\n' "$file"
        return 0
    fi
    if clang-tidy --quiet -p "$database" "$file" >"$stamp.log" 2>&1; then
        touch "$stamp"
    else
        grep -v 'warnings generated\|Suppressed\|Use -header-filter' "$stamp.log"
        return 1
    fi
}

# Linting is in no hurry. When tests are to be run as well, it begins before them, and takes the time in which they wait.
tidy_process=
tidy_begin() {
    local newest
    [ -e "$clang_build/compile_commands.json" ] || return 0
    mkdir -p "$logs/tidy"
    newest=$(find src kernels tests benchmarks .clang-tidy -name '*.h' -printf '%T@ %p\n' -o -name .clang-tidy \
        -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2-)
    touch -r "$newest" "$logs/tidy/headers"
    export -f tidy_file
    export logs build clang_build
    # Those that are likely to take longest first.
    # shellcheck disable=SC2016  # expanded by the inner shell
    find src -name '*.c' -printf '%s %p\n' | sort -rn | cut -d ' ' -f 2- |
        nice -n 19 xargs -r -P "$jobs" -I{} bash -c 'tidy_file "$1"' tidy {} >"$logs/tidy.log" 2>&1 &
    tidy_process=$!
}

stage_tidy() {
    local status=0
    [ -n "$tidy_process" ] || tidy_begin
    if [ -z "$tidy_process" ]; then
        count "clang-tidy (not configured)" 1
        return
    fi
    wait "$tidy_process" || status=1
    tidy_process=
    cat "$logs/tidy.log"
    count "clang-tidy" "$status"
}

stage_scripts() {
    local status=0 python
    find jobscripts tests benchmarks .ci -name '*.sh' -print0 -o -path .ci/run -print0 | xargs -0 shellcheck -x || status=1
    count "shellcheck" "$status"
    status=0
    python=$(find_python) || status=1
    find postproc tests benchmarks -name '*.py' -print0 |
        xargs -0 -r -n 1 "$python" -c 'import sys; compile(open(sys.argv[1]).read(), sys.argv[1], "exec")' || status=1
    count "Python compiles" "$status"
}

stage_valgrind() {
    local rule status log
    for rule in voter neural; do
        cat >"$scratch/$rule.yml" <<EOF
run:     {steps: 5, seed: 1, stop: steps}
agents:  {options: 3}
model:   {rule: $rule}
network: {kind: lattice2d, size: [24, 24]}
output:  {directory: $scratch/valgrind-$rule, snapshot_every: 2 steps}
EOF
        status=0
        log=$logs/valgrind-$rule.log
        timeout 200 valgrind -q --leak-check=full --errors-for-leak-kinds=definite --error-exitcode=9 \
            --suppressions=/usr/share/openmpi/openmpi-valgrind.supp --suppressions=tests/suppressions/valgrind.txt \
            "$build/quorate" run "$scratch/$rule.yml" --set compute.threads=1 >"$log" 2>&1 </dev/null || status=$?
        [ "$status" -eq 0 ] || tail -n 60 "$log"
        count "valgrind: $rule" "$status"
    done
}

stage_fuzz() {
    local status=0
    bash tests/fuzz/run.sh 10 >"$logs/fuzz.log" 2>&1 </dev/null || status=$?
    [ "$status" -eq 0 ] || [ "$status" -eq 77 ] || tail -n 40 "$logs/fuzz.log"
    count "fuzzing" "$status"
}

started=$SECONDS
set_mpi_environment "$jobs"
for stage; do
    begun=$SECONDS
    printf '\n== %s\n' "$stage"
    "stage_$stage"
    printf '== %s took %d s\n' "$stage" $((SECONDS - begun))
done
printf '\n== all took %d s\n' $((SECONDS - started))
finish
