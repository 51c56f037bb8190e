#!/usr/bin/env bash
# Bulk moves between three ranks, one of which runs out of memory at every point in turn.
set -euo pipefail
: "${BUILD_DIR:?the build directory}"
program=$BUILD_DIR/tests/unit_test_transfer
if [ ! -x "$program" ]; then
    echo "no $program"
    exit 77
fi
timeout 120 mpirun -n 3 --oversubscribe --bind-to none "$program"
