#!/usr/bin/env bash
# Broken decks: `quorate check` and `quorate run` must each give exactly the message in NN_name.expected (standard error
# and exit code), within 10 s, and write nothing. NN_name.set holds a value for --set. Binary, huge and absent decks
# are made here. ACCEPT=1 rewrites the expectations; read them before committing.
set -euo pipefail
: "${QUORATE:?the executable}"
cases=$(cd "$(dirname "${BASH_SOURCE[0]}")/deck_errors" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/decks" "$work/said"
cd "$work/decks"
cp "$cases"/*.yml "$cases"/*.set .

# Decks that do not belong in a repository.
printf 'run: {seed: 1}\n\0\n' >90_nul_byte.yml
printf 'run:\n  title: caf\351\n' >91_latin1.yml
printf '\376\377\0r\0u\0n\0:' >92_utf16.yml
python3 -c 'import random, sys; sys.stdout.buffer.write(random.Random(1).randbytes(10_000_000))' >93_garbage_10_mb.yml
head -c 1000000 93_garbage_10_mb.yml >94_garbage_1_mb.yml
python3 -c 'import random; r = random.Random(2); print("".join(map(chr, (r.randrange(33, 126) for _ in range(900000)))))' \
    >95_printable_garbage.yml
python3 -c 'print("run: {title: " + "long " * 2000 + "}")' >96_long_text.yml
python3 -c 'print("".join(f"key{i}: 1\n" for i in range(2000)))' >97_many_keys.yml
python3 -c 'print("run: {seed: " + "9" * 100000 + "}")' >98_long_number.yml
head -c 1000000 /dev/zero | tr '\0' '[' >99_brackets_1_mb.yml
mkdir a1_directory.yml
# a0_missing.yml is not there.

find . | LC_ALL=C sort >"$work/before"
failures=0
tried=0

# one NAME SUBCOMMAND: standard error and exit code in $work/said/NAME.SUBCOMMAND
one() {
    local extra=() code=0 got=$work/said/$1.$2
    if [ -f "$1.set" ]; then
        extra=(--set "$(cat "$1.set")")
    fi
    timeout 60 "$QUORATE" "$2" "$1.yml" "${extra[@]}" >"$got.out" 2>"$got" </dev/null || code=$?
    echo "exit $code" >>"$got"
    if [ -s "$got.out" ]; then
        echo "standard output is not empty" >>"$got"
    fi
}

names=$(for file in [0-9a]*.yml; do echo "${file%.yml}"; done; echo a0_missing)
# Several at a time: their start is mostly waiting.
export -f one
export work
# shellcheck disable=SC2016  # expanded by the inner shell
for name in $names; do printf '%s\0' "$name" check "$name" run; done |
    xargs -0 -n 2 -P $((2 * $(nproc))) bash -c 'one "$1" "$2"' one

for name in $names; do
    expected=$cases/$name.expected
    if [ "${ACCEPT:-0}" = 1 ]; then
        cp "$work/said/$name.check" "$expected"
    fi
    for subcommand in check run; do
        tried=$((tried + 1))
        if ! diff -u "$expected" "$work/said/$name.$subcommand" >"$work/diff"; then
            echo "FAILED: quorate $subcommand $name.yml"
            cat "$work/diff"
            failures=$((failures + 1))
        fi
    done
done

for expected in "$cases"/*.expected; do
    name=$(basename "$expected" .expected)
    if ! grep -qxF "$name" <<<"$names"; then
        echo "FAILED: $name.expected has no deck"
        failures=$((failures + 1))
    fi
done

find . | LC_ALL=C sort >"$work/after"
if ! diff "$work/before" "$work/after"; then
    echo "FAILED: something was written"
    failures=$((failures + 1))
fi
echo "$tried runs of broken decks, $failures failures"
[ "$failures" -eq 0 ] && [ "$tried" -ge 120 ]
