#!/usr/bin/env bash
# What `quorate check` prints for each deck in inputs/ (and what used.yml therefore holds) is a deck again, with the same
# values.
set -euo pipefail
: "${QUORATE:?the executable}" "${SOURCE_DIR:?the repository}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$SOURCE_DIR"
tried=0
for deck in inputs/*.yml; do
    "$QUORATE" check "$deck" >"$work/first.yml"
    "$QUORATE" check "$work/first.yml" >"$work/second.yml"
    # Comments tell where each value came from, which is another place now.
    diff <(sed 's/ *# .*//' "$work/first.yml") <(sed 's/ *# .*//' "$work/second.yml")
    tried=$((tried + 1))
done
echo "$tried decks"
[ "$tried" -ge 5 ]
