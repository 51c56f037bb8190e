#!/usr/bin/env bash
# Three ranks, one of which fails while the others wait for something other than MPI.
set -euo pipefail
: "${BUILD_DIR:?the build directory}"
program=$BUILD_DIR/tests/unit_test_alarm
if [ ! -x "$program" ]; then
    echo "no $program"
    exit 77
fi
timeout 120 mpirun -n 3 --oversubscribe --bind-to none "$program"
