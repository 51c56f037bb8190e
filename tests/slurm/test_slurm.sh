#!/usr/bin/env bash
# Submits the job scripts to a real Slurm that this test starts on this machine and stops again. Needs QUORATE and
# SOURCE_DIR. Exit code 77: Slurm is not installed here.
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
        tail -n 15 "$work"/log/*.log "$work"/*.log 2>/dev/null
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
python=$(find_python) || exit 1
cd "$work" || exit 1

cat >nest.yml <<'EOF'
run:       {title: Slurm test, seed: 1, steps: 500}
agents:    {count: 2000, options: 3}
model:     {rule: best_of_n, qualities: [1, 1.2, 1.5]}
network:   {kind: complete}
consensus: {quorum: 9/10, hold: 5}
output:    {directory: results/nest}
EOF
cat >endless.yml <<'EOF'
run:       {title: Endless, seed: 1, steps: 1000000000000, stop: steps}
agents:    {count: 2000, options: 2}
model:     {rule: voter}
network:   {kind: complete}
output:    {directory: results/endless, series_every: 1000 steps, flush_every: 0.2 s}
EOF

# submit LOG SBATCH_ARGUMENT...: does not wait for the job.
declare -A jobs
submit() {
    local log=$1
    shift
    jobs[$log]=$(sbatch --parsable --output="$log" "$@")
}
# ends_with CODE LOG: waits for the job; each of its tasks must end by itself, with that exit code.
ends_with() {
    local ends expected="COMPLETED 0:0"
    [ "$1" -eq 0 ] || expected="FAILED $1:0"
    wait_for 120 job_is_over "${jobs[$2]}" || return 1
    ends=$(scontrol show job "${jobs[$2]}" | grep -o 'JobState=[A-Z]*\|ExitCode=[0-9:]*' | sed 's/.*=//' | paste -d ' ' - - | sort -u)
    [ "$ends" = "$expected" ]
}
# hash_of LOG...: the different state hashes in the logs.
hash_of() {
    sed -n 's/^.*state hash: \([0-9a-f]\{32\}\).*$/\1/p' "$@" | sort -u
}
count_hashes() {
    hash_of "$@" | wc -l
}
has() {
    grep -Eq -- "$1" "$2"
}

# All of these at once: what does not fit waits its turn.
scripts=$SOURCE_DIR/jobscripts
if srun --mpi=list 2>&1 | grep -q pmix; then
    srun_works=yes
else
    srun_works=no
    echo "skip  srun: this Slurm does not speak PMIx"
fi
submit node.log "$scripts/slurm_node.sh" nest.yml --set output.directory=results/node
submit gpu.log --gpus-per-node=2 --ntasks=3 "$scripts/slurm_gpu_node.sh" nest.yml --set output.directory=results/gpu
submit few.log --gpus-per-node=2 --ntasks=2 "$scripts/slurm_gpu_node.sh" nest.yml --set output.directory=results/few
submit missing.log "$scripts/slurm_node.sh" nowhere.yml
array=("$scripts/slurm_array.sh" nest.yml)
submit array-%a.log --array=1-3 "${array[@]}"
if [ "$cluster_nodes" -eq 2 ]; then
    submit nodes.log "$scripts/slurm_nodes.sh" nest.yml --set output.directory=results/nodes
    submit gpus.log --gpus-per-node=2 --ntasks-per-node=3 "$scripts/slurm_gpu_nodes.sh" nest.yml \
        --set output.directory=results/gpus
    [ "$srun_works" = no ] ||
        QUORATE_LAUNCHER=srun submit srun.log "$scripts/slurm_nodes.sh" nest.yml --set output.directory=results/srun
else
    echo "skip  two nodes: nobody may give a process a host name of its own here"
fi

# ---- one node, many nodes
check "one node: the job ends with 0" ends_with 0 node.log
[ "$failures" -eq 0 ] || exit 1
check "one node: a decision is taken" has 'decision: option 2, [0-9]+ of 2000 agents' node.log
check "one node: there are results" test -s results/node/series.h5 -a -s results/node/summary.json
if [ "$cluster_nodes" -eq 2 ]; then
    check "two nodes: the job ends with 0" ends_with 0 nodes.log
    check "two nodes: both are used" has '2 compute ranks .* 2 I/O ranks, 2 nodes' nodes.log
    check "two nodes: the same state as on one" test "$(count_hashes node.log nodes.log)" -eq 1
    check "two nodes: there are results" test -s results/nodes/series.h5
    if [ "$srun_works" = yes ]; then
        check "srun: the job ends with 0" ends_with 0 srun.log
        check "srun: both nodes are used" has '2 compute ranks .* 2 I/O ranks, 2 nodes' srun.log
        check "srun: the same state as by mpirun" test "$(count_hashes node.log srun.log)" -eq 1
    fi
fi
# ---- GPUs, which are files here: the program computes on cores, but ranks and GPUs are counted out as on a cluster
check "GPUs of one node: the job ends with 0" ends_with 0 gpu.log
check "GPUs of one node: two, with a rank each and one for files" \
    has '3 ranks on qn[12], 2 GPUs$|2 compute ranks .* 1 I/O rank, 1 node' gpu.log
check "GPUs of one node: nothing to warn of" test -z "$(grep -s 'warning: . ranks' gpu.log)"
check "GPUs of one node: the same state as without" test "$(count_hashes node.log gpu.log)" -eq 1
check "too few ranks: the job ends with 0" ends_with 0 few.log
check "too few ranks: a warning says how many" has 'warning: 2 ranks on a node for 2 GPUs; .* make 3' few.log
if [ "$cluster_nodes" -eq 2 ]; then
    check "GPUs of two nodes: the job ends with 0" ends_with 0 gpus.log
    check "GPUs of two nodes: four, with a rank each" has '4 compute ranks .* 2 I/O ranks, 2 nodes' gpus.log
    check "GPUs of two nodes: told" has '6 ranks on 2 nodes .*, 2 GPUs on each' gpus.log
    check "GPUs of two nodes: the same state as without" test "$(count_hashes node.log gpus.log)" -eq 1
fi
check "more GPUs than there are: Slurm refuses" test "$(submit many.log --gpus-per-node=3 \
    "$scripts/slurm_gpu_node.sh" nest.yml >/dev/null 2>&1; echo $?)" -ne 0
check "a deck that is missing: the job ends with 2" ends_with 2 missing.log

# ---- an array over seeds
check "array: every task ends with 0" ends_with 0 array-%a.log
check "array: each seed has its results" \
    test -s results/nest/seed_0001/series.h5 -a -s results/nest/seed_0002/series.h5 -a -s results/nest/seed_0003/series.h5
check "array: seeds differ" test "$(count_hashes array-1.log array-2.log array-3.log)" -eq 3
check "array: seed 1 is the run of one node" test "$(count_hashes array-1.log node.log)" -eq 1
touch before
submit again-%a.log --array=1-3 "${array[@]}"
check "array: submitted again" ends_with 0 again-%a.log
check "array: what is complete is not run again" \
    test -z "$(find results/nest -type f -newer before)" -a -n "$(grep -l 'is complete' again-3.log)"

# ---- signals: a run without an end, told to stop
# start_endless NAME SCRIPT: submits it and returns when its series is on disk. Sets job.
start_endless() {
    submit "$1.log" "$SOURCE_DIR/jobscripts/$2" endless.yml --set output.directory="results/$1"
    job=${jobs[$1.log]}
    wait_for 60 test -s "results/$1/series.h5" && sleep 1
}
# The last row of the series is the last step, and the summary names what stopped the run.
results_are_flushed() {
    "$python" - "$1" "$2" <<'EOF'
import json, sys, h5py
summary = json.load(open(f"{sys.argv[1]}/summary.json"))
with h5py.File(f"{sys.argv[1]}/series.h5", "r") as file:
    step, tally = file["series/step"][:], file["series/tally"][:]
assert summary["stopped_by"] in sys.argv[2].split("|"), summary
assert len(step) > 1 and len(step) == len(tally) and (tally.sum(axis=1) == 2000).all(), step
EOF
}

# usr1_ends_it NAME SCRIPT
usr1_ends_it() {
    check "SIGUSR1, $1: the run starts" start_endless "$1" "$2"
    scancel --signal=USR1 --batch "$job"
    check "SIGUSR1, $1: the job ends soon" wait_for 30 job_is_over "$job"
    check "SIGUSR1, $1: the job ends with 0" ends_with 0 "$1.log"
    check "SIGUSR1, $1: results are flushed" results_are_flushed "results/$1" SIGUSR1
}
usr1_ends_it one-node slurm_node.sh
if [ "$cluster_nodes" -eq 2 ]; then
    usr1_ends_it two-nodes slurm_nodes.sh
    if [ "$srun_works" = yes ]; then
        export QUORATE_LAUNCHER=srun
        usr1_ends_it by-srun slurm_nodes.sh
        unset QUORATE_LAUNCHER
    fi
fi

check "SIGTERM: the run starts" start_endless term slurm_node.sh
scancel "$job"
check "SIGTERM: the job ends soon" wait_for 40 job_is_over "$job"
check "SIGTERM: results are flushed" results_are_flushed results/term 'SIGUSR1|SIGTERM'

printf '%d failures\n' "$failures"
[ "$failures" -eq 0 ]
