#!/usr/bin/env bash
# What could not be said must not look like success: a standard output that takes no more ends every command with a
# message and exit code 4. A reader that has seen enough is no failure of ours.
set -euo pipefail
: "${QUORATE:?the executable}"
if [ ! -c /dev/full ]; then
    echo "skipped: no /dev/full"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
printf 'run: {steps: 3}\nagents: {count: 10}\noutput: {directory: out}\n' >deck.yml
failures=0

# expect CODE TEXT LINES COMMAND...: exit code and what standard error says, with a full standard output
expect() {
    local wanted=$1 text=$2 lines=$3 code=0
    shift 3
    timeout 60 "$QUORATE" "$@" >/dev/full 2>err </dev/null || code=$?
    if [ "$code" -ne "$wanted" ] || ! grep -qF "$text" err || [ "$(wc -l <err)" -ne "$lines" ]; then
        echo "FAILED: quorate $* >/dev/full: exit code $code, and:"
        cat err
        failures=$((failures + 1))
    fi
}

full='quorate: error: standard output could not be written'
expect 4 "$full" 1 keys
expect 4 "$full" 1 keys run.seed
expect 4 "$full" 1 models
expect 4 "$full" 1 check deck.yml
expect 4 "$full" 1 --version
expect 4 "$full" 1 --help
expect 4 "$full" 1 run deck.yml --quiet
expect 4 "$full" 1 run deck.yml --dry-run --set output.directory=other
expect 4 "$full" 1 info out
expect 2 "no deck key begins with 'nonsense'" 1 keys nonsense # nothing to say, and so nothing lost

"$QUORATE" keys 2>err | head -n 1 >/dev/null || true
if [ -s err ]; then
    echo "FAILED: quorate keys | head -n 1 says:"
    cat err
    failures=$((failures + 1))
fi
[ -f out/summary.json ] || { echo "FAILED: the run's results are lost too"; failures=$((failures + 1)); }
echo "$failures failures"
[ "$failures" -eq 0 ]
