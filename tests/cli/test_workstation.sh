#!/usr/bin/env bash
# jobscripts/workstation.sh: a deck becomes pictures; a second call repeats nothing; a signal ends a run with its results.
# It builds into build/ of the repository, as a user's call would.
set -uo pipefail

: "${SOURCE_DIR:?the repository}"
workstation=$SOURCE_DIR/jobscripts/workstation.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP
cd "$work" || exit 1
failures=0

# The sanitizers' settings of a test run are not meant for mpirun and python.
unset ASAN_OPTIONS LSAN_OPTIONS UBSAN_OPTIONS

check() {
    local name=$1
    shift
    if "$@"; then
        printf 'ok    %s\n' "$name"
    else
        printf 'FAIL  %s\n' "$name"
        tail -n 5 log 2>/dev/null
        failures=$((failures + 1))
    fi
}
call() {
    timeout 240 "$workstation" "$@" >log 2>&1 </dev/null
}
said() {
    grep -q -- "$1" log
}

cat >small.yml <<'EOF'
run:       {title: Small, seed: 1, steps: 50}
agents:    {options: 2}
model:     {rule: voter}
network:   {kind: lattice2d, size: [16, 16]}
output:    {directory: out/small, snapshot_every: 10 steps}
EOF

check "a deck: exit code 0" call small.yml
check "a deck: the decision is told" said '^decision: '
check "a deck: results and pictures" test -s out/small/series.h5 -a -s out/small/summary.json \
    -a -s out/small/shares.pdf -a -s out/small/snapshots.png
check "a deck: says where" said 'Everything is in out/small'

touch before
check "again: exit code 0" call small.yml
check "again: says that it is complete" said 'not run again'
check "again: nothing is written" test -z "$(find out -newer before)"

rm out/small/shares.png
check "a picture is missing: exit code 0" call small.yml
check "a picture is missing: drawn, but not run" test -s out/small/shares.png -a ! out/small/series.h5 -nt before

check "another seed: exit code 0" call small.yml --set run.seed=2
check "another seed: the old results are kept" test -s out/small.1/series.h5 -a out/small/series.h5 -nt before

call nowhere.yml
check "no deck: exit code 2" test $? -eq 2
call small.yml --set run.sede=2
check "a wrong key: exit code 2" test $? -eq 2
call small.yml --frobnicate
check "a wrong option: exit code 2" test $? -eq 2

# ---- told to stop
"$workstation" small.yml --set run.steps=1e12 --set run.stop=steps --set output.directory=out/endless \
    --set output.series_every='1000 steps' --set output.snapshot_every=never >log 2>&1 </dev/null &
process=$!
for ((i = 0; i < 300; i++)); do
    [ -s out/endless/series.h5 ] && break
    sleep 0.2
done
sleep 2
kill -TERM "$process"
status=0
wait "$process" || status=$?
check "SIGTERM: exit code 0" test "$status" -eq 0
check "SIGTERM: results are flushed" grep -q '"stopped_by": "SIGUSR1"' out/endless/summary.json
check "SIGTERM: not taken for complete" said 'stopped early'
check "SIGTERM: drawn up to there" test -s out/endless/shares.png

# ---- a deck with checkpoints: the same command goes on
cat >long.yml <<'YML'
run:        {title: Goes on, seed: 1, steps: 100000000, stop: steps}
agents:     {options: 2}
model:      {rule: voter}
network:    {kind: lattice2d, size: [64, 64]}
checkpoint: {every: 1 s}
output:     {directory: out/long, series_every: 1000 steps}
YML
# stop_long [ARGUMENT...]: starts it and stops it when it has left a checkpoint of its own
stop_long() {
    touch begun
    "$workstation" long.yml "$@" >log 2>&1 </dev/null &
    process=$!
    for ((i = 0; i < 300; i++)); do
        grep -q '^network ' log && [ -n "$(find out/long/checkpoints -name '*.manifest' -newer begun 2>/dev/null)" ] && break
        sleep 0.2
    done
    kill -TERM "$process"
    status=0
    wait "$process" || status=$?
}
reached() {
    sed -n 's/^  "steps": \([0-9]*\),$/\1/p' out/long/summary.json
}
stop_long
check "told to stop with checkpoints: exit code 75" test "$status" -eq 75
check "told to stop with checkpoints: says how to go on" said 'the same command goes on from there'
check "told to stop with checkpoints: drawn up to there" test -s out/long/shares.png
first=$(reached)
stop_long
check "the same command: goes on" said "restart: checkpoint [0-9]*, step $first,"
check "the same command: gets on" test "$(reached)" -gt "$first"
check "the same command: nothing is moved aside" test ! -e out/long.1
second=$(reached)
check "fewer steps are left: it ends with 0" call long.yml --restart auto --set run.steps=$((second + 500))
check "fewer steps are left: they are taken" test "$(reached)" -eq $((second + 500))
check "fewer steps are left, again: not run" call long.yml --set run.steps=$((second + 500))
check "fewer steps are left, again: says so" said 'not run again'
stop_long --set run.seed=2
check "another seed: begins afresh" test "$(grep -c 'restart: checkpoint' log)" -eq 0
check "another seed: results and checkpoints are kept" \
    test -s out/long.1/series.h5 -a -n "$(find out/long.1/checkpoints -name '*.manifest')"

printf '%d failures\n' "$failures"
[ "$failures" -eq 0 ]
