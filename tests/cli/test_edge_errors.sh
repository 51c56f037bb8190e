#!/usr/bin/env bash
# Broken edge lists: `quorate run` on each must end within 10 s with exactly the message in edge_errors/NN_name.expected
# (standard error and exit code), and write nothing. Binary, huge and absent files are made here. ACCEPT=1 rewrites the
# expectations; read them before committing.
set -euo pipefail
: "${QUORATE:?the executable}"
cases=$(cd "$(dirname "${BASH_SOURCE[0]}")/edge_errors" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/run" "$work/said"
cd "$work/run"
cp "$cases"/*.txt .

# Files that do not belong in a repository.
: >50_empty.txt
printf '0 1\n2 \0 3\n' >51_nul_byte.txt
printf '# comment \0\n0 1\n' >52_nul_in_comment.txt
printf '\377\376\060\000\040\000\061\000\012\000' >53_utf16.txt
printf '\357\273\2770 1\n' >54_byte_order_mark.txt
printf '0 1\r2 3\r' >55_carriage_returns.txt
printf '0 1\r\n2\r\n' >56_one_id_before_crlf.txt
python3 - <<'PYTHON'
import bz2
import gzip
import random

packed = gzip.compress(b"".join(b"%d %d\n" % (i, i + 1) for i in range(20000)), mtime=0)


def write(name: str, data: bytes) -> None:
    with open(name + ".txt", "wb") as file:
        file.write(data)


write("60_gzip_magic_only", packed[:2])
write("61_gzip_header_cut", packed[:7])
write("62_gzip_cut", packed[: len(packed) // 2])
write("63_gzip_trailer_cut", packed[:-4])
write("64_gzip_wrong_checksum", packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:])
write("65_gzip_wrong_length", packed[:-1] + bytes([packed[-1] ^ 1]))
write("66_gzip_unknown_method", packed[:2] + b"\x09" + packed[3:])
write("67_gzip_junk_behind", packed + b"junk")
write("68_gzip_second_member_cut", packed + packed[:1000])
write("69_gzip_of_nothing", gzip.compress(b"", mtime=0))
write("70_gzip_of_words", gzip.compress(b"0 1\n1 two\n", mtime=0))
write("71_bzip2", bz2.compress(b"0 1\n"))
write("72_garbage_10_mb", random.Random(1).randbytes(10_000_000))
write("73_garbage_in_gzip", packed[:10] + random.Random(2).randbytes(1_000_000))
write("74_digits_10_mb", b"7" * 10_000_000)
write("75_blanks_10_mb", b"0" + b" " * 10_000_000)
write("76_gzip_in_gzip", gzip.compress(packed, mtime=0))
PYTHON
printf '0 1\n1 2\n' >80_wrong_count.txt
mkdir 81_directory.txt
# 82_missing.txt is not there.

find . | LC_ALL=C sort >"$work/before"
failures=0
tried=0

# one NAME: standard error and exit code in $work/said/NAME
one() {
    local code=0 settings=(--set "network.file=$1.txt") got=$work/said/$1
    if [ "$1" = 80_wrong_count ]; then
        settings+=(--set agents.count=5)
    fi
    timeout 60 "$QUORATE" run "$cases/deck.yml" "${settings[@]}" >"$got.out" 2>"$got" </dev/null || code=$?
    sed -i "s:$cases/::g" "$got"
    echo "exit $code" >>"$got"
}

names=$(for file in [0-9]*.txt; do echo "${file%.txt}"; done; echo 82_missing)
# Several at a time: their start is mostly waiting.
export -f one
export work cases
# shellcheck disable=SC2016,SC2086  # expanded by the inner shell; names hold no blanks
printf '%s\0' $names | xargs -0 -n 1 -P $((2 * $(nproc))) bash -c 'one "$1"' one

for name in $names; do
    expected=$cases/$name.expected
    if [ "${ACCEPT:-0}" = 1 ]; then
        cp "$work/said/$name" "$expected"
    fi
    tried=$((tried + 1))
    if ! diff -u "$expected" "$work/said/$name" >"$work/diff"; then
        echo "FAILED: quorate run with $name.txt"
        cat "$work/diff"
        failures=$((failures + 1))
    fi
done

for expected in "$cases"/*.expected; do
    name=$(basename "$expected" .expected)
    if ! grep -qxF "$name" <<<"$names"; then
        echo "FAILED: $name.expected has no edge list"
        failures=$((failures + 1))
    fi
done

find . | LC_ALL=C sort >"$work/after"
if ! diff "$work/before" "$work/after"; then
    echo "FAILED: something was written"
    failures=$((failures + 1))
fi

echo "$tried runs with broken edge lists, $failures failures"
[ "$failures" -eq 0 ] && [ "$tried" -ge 50 ]
