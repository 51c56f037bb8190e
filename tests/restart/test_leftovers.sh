#!/usr/bin/env bash
# What a killed attempt left half-done is removed when the next one begins; everything else in the directory stays.
set -euo pipefail
: "${QUORATE:?the executable}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cat >deck.yml <<'YML'
run: {seed: 4, steps: 100000000, stop: steps}
agents: {options: 3}
model: {rule: voter}
network: {kind: lattice2d, size: [64, 64]}
checkpoint: {every: 1 steps, tiers: {nvme: {directory: fast}}}
output: {directory: out}
YML

# half_done: generations in the directory without a manifest, and temporary files
half_done() {
    local file generation
    for file in fast/generation-* fast/.generation-*; do
        [ -e "$file" ] || continue
        generation=${file#*generation-}
        generation=${generation%%.*}
        case $file in
        *.tmp) echo "$file" ;;
        *) [ -e "fast/generation-$generation.manifest" ] || echo "$file" ;;
        esac
    done
}

fail() {
    printf 'FAILED: %s\n' "$1"
    ls -A fast || true
    tail -n 20 log
    exit 1
}

# One dies before a manifest, one in the middle of the data, on one server and on two.
for point in checkpoint.manifest:kill@3 checkpoint.fsync:kill@2; do
    for ranks in "1 1" "3 2"; do
        read -r n per_node <<<"$ranks"
        QUORATE_FAULT=$point mpirun --oversubscribe --bind-to none -n "$n" "$QUORATE" run deck.yml --restart auto \
            --set io.ranks_per_node=$((per_node - 1)) >log 2>&1 && fail "$point: nobody died"
        [ -n "$(half_done)" ] || fail "$point on $n ranks leaves nothing half-done; is it still passed?"
    done
done
before=$(half_done)
touch fast/notes.txt fast/generation-old.tar
newest=$(basename "$(find fast -name '*.manifest' | sort | tail -n 1)" .manifest)

# Stopped by the first cut, so that nothing but the start can have removed anything.
QUORATE_FAULT=checkpoint.begin:kill "$QUORATE" run deck.yml --restart auto >log 2>&1 && fail "nobody died at the first cut"
for file in $before; do
    [ ! -e "$file" ] || fail "$file is still there"
done
[ -e fast/notes.txt ] || fail "a file of somebody else is gone"
[ -e fast/generation-old.tar ] || fail "a file that only looks like a checkpoint is gone"
[ -e "fast/$newest.manifest" ] || fail "$newest.manifest is gone"
"$QUORATE" info fast >log || { cat log; fail "what was committed does not verify"; }

# A run that begins afresh does the same.
rm -f fast/*.manifest fast/generation-old.tar
[ -n "$(half_done)" ] || fail "nothing to remove"
before=$(half_done)
QUORATE_FAULT=checkpoint.begin:kill "$QUORATE" run deck.yml --set output.overwrite=true >log 2>&1 &&
    fail "nobody died at the first cut"
for file in $before; do
    [ ! -e "$file" ] || fail "$file is still there when a run begins afresh"
done
echo "half-done generations are removed, all else stays"
