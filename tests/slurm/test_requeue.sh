#!/usr/bin/env bash
# A job whose time limit strikes in mid-run leaves a checkpoint, queues itself again, and ends with the state hash it would have
# had. On a real Slurm that this test starts on this machine and stops again. Needs QUORATE and SOURCE_DIR. Exit code 77:
# Slurm is not installed here.
set -uo pipefail

: "${QUORATE:?the program}" "${SOURCE_DIR:?the repository}"
export QUORATE QUORATE_ROOT=$SOURCE_DIR
# shellcheck source=SCRIPTDIR/slurm_cluster.sh
. "$SOURCE_DIR/tests/slurm/slurm_cluster.sh"
# shellcheck source=SCRIPTDIR/../../jobscripts/lib.sh
. "$SOURCE_DIR/jobscripts/lib.sh"

# Short: the path of a socket may have 107 characters.
work=$(mktemp -d /tmp/qr-slurm.XXXXXX)
failures=0

finish() {
    local status=$?
    timeout 5 squeue 2>/dev/null >"$work/log/queue-at-the-end.log"
    slurm_cluster_stop
    if [ "$status" -ne 0 ] && [ "$status" -ne 77 ]; then
        tail -n 25 "$work"/log/*.log "$work"/*.log 2>/dev/null
    fi
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT
trap 'exit 1' INT TERM HUP

# check NAME COMMAND...
check() {
    local name=$1
    shift
    if "$@"; then
        printf 'ok    %s\n' "$name"
    else
        printf 'FAIL  %s\n' "$name"
        failures=$((failures + 1))
    fi
}

slurm_cluster_start "$work"
case $? in
0) ;;
77)
    echo "skipped: slurm-wlm and munge are not installed"
    exit 77
    ;;
*)
    echo "Slurm did not start"
    exit 1
    ;;
esac

# Both nodes are this machine, and test machines may have no network but the loopback interface.
export OMPI_MCA_btl_tcp_if_include=lo OMPI_MCA_oob_tcp_if_include=lo
cd "$work" || exit 1

cat >long.yml <<'YML'
run:        {title: Longer than its time limit, seed: 3, steps: 1000000000, stop: steps}
agents:     {options: 2, initial: shares, shares: [2, 1]}
model:      {rule: neural, state_dim: 8, hidden: 16}
network:    {kind: lattice2d, size: [256, 128]}
checkpoint: {every: 10 s, tiers: {nvme: {directory: fast}}}
output:     {directory: results/long, series_every: 10 steps, snapshot_every: 200 steps}
YML

hash_of() {
    sed -n 's/^.*state hash: \([0-9a-f]\{32\}\).*$/\1/p' "$@" | tail -n 1
}
job_field() {
    scontrol show job "$1" | tr ' ' '\n' | sed -n "s/^$2=//p" | head -n 1
}
# job_has_ended ID. A job that is queued again passes through other states first, so that one look is not enough.
job_has_ended() {
    local look
    for look in 1 2 3; do
        case $(job_field "$1" JobState) in
        COMPLETED | FAILED | CANCELLED | TIMEOUT | NODE_FAIL) [ "$look" -eq 3 ] || sleep 0.5 ;;
        PENDING) # Slurm lets a job that was queued again wait for two minutes, so that its nodes are through with it:
                 # one that starts in the second of its end counts as killed there. Some seconds will do.
            sleep 5
            scontrol update JobId="$1" StartTime=now 2>/dev/null
            return 1
            ;;
        *) return 1 ;;
        esac
    done
}
has() {
    grep -Eq -- "$1" "$2"
}

# Of its time limit of a minute Slurm warns the job after 10 to 40 s. Only when it has stopped are its steps counted out: so many
# that the next attempt is a short one. Steps that a command line names count as they are there.
set_mpi_environment 2
long=$(sbatch --parsable --time=1 --signal=B:USR1@50 --output=long.log "$SOURCE_DIR/jobscripts/slurm_node.sh" long.yml \
    --set compute.threads=1)
check "the job is submitted" test -n "$long"
stopped_at() {
    sed -n 's/.*stopped by SIGUSR1 at step \([0-9]*\) with checkpoint.*/\1/p' long.log | head -n 1
}
long_has_stopped() {
    [ -n "$(stopped_at)" ]
}
# The same run, undisturbed.
undisturbed() {
    wait_for 100 long_has_stopped || return 1
    sed -i "s/steps: 1000000000,/steps: $(($(stopped_at) * 6 / 5)),/" long.yml
    timeout 900 "$QUORATE" run long.yml --set output.directory=undisturbed \
        --set checkpoint.tiers.nvme.directory=undisturbed/fast >undisturbed.log 2>&1
}
undisturbed &
undisturbed=$!

# ---- what must not be queued again
# start_other NAME SBATCH_ARGUMENT...: a run without an end; returns when it has left a checkpoint. Sets job.
start_other() {
    local name=$1
    shift
    job=$(sbatch --parsable --output="$name.log" "$@" "$SOURCE_DIR/jobscripts/slurm_node.sh" long.yml --set run.steps=1e12 \
        --set output.directory="results/$name" --set checkpoint.tiers.nvme.directory="fast-$name" \
        --set checkpoint.every='20 steps')
    wait_for 60 sh -c "ls 'fast-$name'/*.manifest"
}
check "scancel: the run starts" start_other cancelled
scancel "$job"
check "scancel: the job ends soon" wait_for 60 job_has_ended "$job"
check "scancel: the job stays ended" test "$(job_field "$job" JobState) $(job_field "$job" Restarts)" = "CANCELLED 0"
check "scancel: its checkpoints are whole" "$QUORATE" info fast-cancelled

check "no --requeue: the run starts" start_other refused --no-requeue
scancel --signal=USR1 --batch "$job"
check "no --requeue: the job ends soon" wait_for 60 job_has_ended "$job"
check "no --requeue: it says what to do" has 'not queued again: Slurm refuses' refused.log
check "no --requeue: exit code 75" test "$(job_field "$job" ExitCode)" = 75:0

# The signal comes when the run has only just read its checkpoint: there is no step to be proud of.
cat >at_once.sh <<'SH'
#!/usr/bin/env bash
[ "$1" = run ] || exec "$REAL_QUORATE" "$@"
"$REAL_QUORATE" "$@" &
trap 'kill -USR1 $!' USR1
wait $! # a signal ends this wait, not the next one
wait $!
status=$?
[ "$status" -ne 75 ] || sed -i 's/"steps": [0-9]*/"steps": 20/; s/"began_at_step": [0-9]*/"began_at_step": 20/' \
    results/stuck/summary.json
exit "$status"
SH
chmod +x at_once.sh
export REAL_QUORATE=$QUORATE QUORATE=$work/at_once.sh
check "no progress: the run starts" start_other stuck
scancel --signal=USR1 --batch "$job"
check "no progress: the job ends soon" wait_for 60 job_has_ended "$job"
check "no progress: it is not queued again" test "$(job_field "$job" ExitCode) $(job_field "$job" Restarts)" = "75:0 0"
check "no progress: it says why" has 'not queued again: no step was taken' stuck.log
export QUORATE=$REAL_QUORATE

# ---- an array: each seed has its own checkpoints
job=$(sbatch --parsable --array=1-2 --output=array-%a.log "$SOURCE_DIR/jobscripts/slurm_array.sh" long.yml \
    --set run.steps=200 --set checkpoint.every='50 steps')
check "array: it ends" wait_for 200 job_is_over "$job"
check "array: every task ends with 0" test "$(scontrol show job "$job" | grep -c 'JobState=COMPLETED')" -eq 2
check "array: each seed has its own checkpoints" test -n "$(ls fast/seed_0001/*.manifest)" -a -n "$(ls fast/seed_0002/*.manifest)"

# ---- the long job again
check "the job comes to its end" wait_for 600 job_has_ended "$long"
check "the same run, undisturbed" wait "$undisturbed"
check "the job ends with 0" test "$(job_field "$long" JobState) $(job_field "$long" ExitCode)" = "COMPLETED 0:0"
check "it was queued again" test "$(job_field "$long" Restarts)" -ge 1
check "each attempt but the last was stopped with a checkpoint" test \
    "$(grep -c 'stopped by SIGUSR1 at step [0-9]* with checkpoint [0-9]*; go on with --restart auto' long.log)" -eq \
    "$(job_field "$long" Restarts)"
check "each but the first went on from it" test "$(grep -c 'restart: checkpoint [0-9]*, step' long.log)" -eq \
    "$(job_field "$long" Restarts)"
check "the state is that of the undisturbed run" test -n "$(hash_of long.log)" -a \
    "$(hash_of long.log)" = "$(hash_of undisturbed.log)"
check "so is the series" "$(find_python)" - <<'PY'
import h5py
with h5py.File("results/long/series.h5") as ours, h5py.File("undisturbed/series.h5") as theirs:
    for name in theirs["series"]:
        assert (ours["series"][name][:] == theirs["series"][name][:]).all(), name
with h5py.File("results/long/snapshots.h5") as ours, h5py.File("undisturbed/snapshots.h5") as theirs:
    assert (ours["step"][:] == theirs["step"][:]).all() and (ours["votes"][:] == theirs["votes"][:]).all()
PY

printf '%d failures\n' "$failures"
[ "$failures" -eq 0 ]
