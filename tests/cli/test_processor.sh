#!/usr/bin/env bash
# On a processor without fused multiply-add the program says so and stops with 3 (emulated by qemu's user mode); on one with
# it, the same emulation runs.
set -u
emulator=$(command -v qemu-x86_64 || command -v qemu-x86_64-static || true)
if [ -z "$emulator" ]; then
    echo "skipped: qemu-user is not installed"
    exit 77
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
echo 'agents: {count: 100}' >"$scratch/deck.yml"
cd "$scratch" || exit 1

output=$(timeout 60 "$emulator" -cpu Nehalem "$QUORATE" run deck.yml 2>&1)
code=$?
if [ "$code" -ne 3 ] || ! grep -q 'no fused multiply-add' <<<"$output"; then
    echo "FAILED: exit code $code on a processor without FMA: $output"
    exit 1
fi
if [ -e results ]; then
    echo "FAILED: something was written"
    exit 1
fi
output=$(timeout 60 "$emulator" -cpu max "$QUORATE" check deck.yml 2>&1)
code=$?
if [ "$code" -ne 0 ]; then
    echo "FAILED: exit code $code on a processor with FMA: $output"
    exit 1
fi
echo "without FMA: exit 3 and a reason; with FMA: runs"
