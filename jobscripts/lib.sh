# shellcheck shell=bash
# What the job scripts and tests/run.sh share. Sourced, never run.

say() {
    printf '== %s\n' "$*"
}

# find_python: prints a python3 that has what postproc/ needs. The distribution's own comes first, because a python3 found
# earlier on PATH (pyenv, conda) often lacks h5py.
find_python() {
    local candidate
    for candidate in /usr/bin/python3 python3; do
        if "$candidate" -c 'import numpy, h5py, matplotlib' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    printf 'no python3 with numpy, h5py and matplotlib was found; run jobscripts/install_packages.sh plot\n' >&2
    return 3
}

# count_cores: physical cores this process may use, within a container's CPU quota. At least 1.
count_cores() {
    local cores physical quota period
    cores=$(nproc)
    physical=$(lscpu -p=CORE,SOCKET 2>/dev/null | grep -vc '^#' || true)
    if [ "${physical:-0}" -gt 0 ]; then
        physical=$(lscpu -p=CORE,SOCKET | grep -v '^#' | sort -u | wc -l)
        [ "$physical" -ge "$cores" ] || cores=$physical
    fi
    if read -r quota period 2>/dev/null </sys/fs/cgroup/cpu.max && [ "$quota" != max ]; then
        quota=$(((quota + period - 1) / period))
        [ "$quota" -ge "$cores" ] || cores=$quota
    fi
    [ "$cores" -ge 1 ] || cores=1
    printf '%s\n' "$cores"
}

# configure_and_build SOURCE BUILD LOG CMAKE_OPTION... -- [TARGET...]: brings the build folder up to date; a second call
# compiles nothing. What the tools say goes to LOG, and to the screen only when they fail.
configure_and_build() {
    local source=$1 build=$2 log=$3
    shift 3
    local options=()
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    [ $# -eq 0 ] || shift
    mkdir -p "$build"
    if ! cmake -S "$source" -B "$build" -G Ninja "${options[@]}" >"$log" 2>&1 || ! ninja -C "$build" "$@" >>"$log" 2>&1; then
        printf 'the build failed; the end of %s:\n' "$log" >&2
        tail -n 40 "$log" >&2
        return 3
    fi
}

# set_mpi_environment CORES: makes Open MPI work on small machines, in containers and for root, and changes nothing else.
set_mpi_environment() {
    if [ "$(id -u)" -eq 0 ]; then
        export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    fi
    # An I/O rank sleeps most of the time, so one rank more than there are cores is not too many.
    export OMPI_MCA_rmaps_base_oversubscribe=1
    # Binding ranks to cores helps from a handful of cores on; below that it makes ranks wait for each other.
    if [ "$1" -le 4 ]; then
        export OMPI_MCA_hwloc_base_binding_policy=none
    fi
    # Containers often forbid the system call by which one process reads another's memory.
    if [ -e /.dockerenv ] || [ -e /run/.containerenv ]; then
        export OMPI_MCA_btl_vader_single_copy_mechanism=none
    fi
}

# run_forwarding_signals COMMAND...: runs mpirun or srun so that INT, TERM and USR1 sent to this script reach every rank as
# SIGUSR1, upon which Quorate writes what it has and ends cleanly. (On TERM itself, mpirun would kill the ranks a second
# later.) A second INT or TERM ends the command at once. Returns its exit code.
# stop_signal is then the first of them, empty when none came.
stop_signal=
run_forwarding_signals() {
    local status child stops=0
    stop_signal=
    # A process group of its own: the terminal's ^C then reaches this script alone.
    set -m
    "$@" </dev/null &
    child=$!
    set +m
    trap 'stop_signal=${stop_signal:-USR1}; kill -USR1 "$child" 2>/dev/null || true' USR1
    trap 'stop_signal=${stop_signal:-TERM}; stops=$((stops + 1)); if [ $stops -eq 1 ]; then
            say "stopping: results are being written (again: stop at once)"; kill -USR1 "$child" 2>/dev/null || true
        else
            kill -TERM "$child" 2>/dev/null || true
        fi' INT TERM
    # A trapped signal makes wait return early with a code above 128 while the child lives on. When it is gone, wait gives its
    # own code once more, or 127 when that is forgotten.
    local answer
    while :; do
        status=0
        wait "$child" || status=$?
        [ "$status" -gt 128 ] || break
        if ! kill -0 "$child" 2>/dev/null; then
            answer=0
            wait "$child" 2>/dev/null || answer=$?
            [ "$answer" -eq 127 ] || status=$answer
            break
        fi
    done
    trap - USR1 INT TERM
    return "$status"
}

# resolve_deck QUORATE DECK [ARGUMENT of run]...: sets resolved_deck, the deck as the program understands it, without the
# comments that say who set each value.
resolve_deck() {
    local quorate=$1 deck=$2 settings=()
    shift 2
    while [ $# -gt 0 ]; do
        case $1 in
        --set=*) settings+=("$1") ;;
        --set)
            settings+=(--set "${2:-}")
            [ $# -eq 1 ] || shift
            ;;
        --restart) [ $# -eq 1 ] || shift ;;
        esac
        shift
    done
    resolved_deck=$("$quorate" check --values "$deck" "${settings[@]}") || return
    resolved_deck=$(printf '%s\n' "$resolved_deck" | sed 's/ *  # .*$//')
}

# deck_value SECTION KEY: a value of the resolved deck without quotes, empty when there is none.
deck_value() {
    printf '%s\n' "$resolved_deck" | awk -v section="$1:" -v key="$2:" '
        /^[^ ]/ { inside = ($1 == section) }
        inside && /^ / && $1 == key { sub(/^[^:]*:[ ]*/, ""); gsub(/^["'\'']|["'\'']$/, ""); print; exit }'
}

# deck_has_checkpoints: whether the resolved deck asks for any.
deck_has_checkpoints() {
    printf '%s\n' "$resolved_deck" | awk '
        /^[^ ]/ { inside = ($1 == "checkpoint:") }
        inside && $1 == "every:" && $2 != "never" { found = 1 }
        END { exit !found }' || [ -n "$(tier_directories)" ]
}

# tier_directories: "nvme scratch/ckpt", a line for each tier that the resolved deck names a directory for.
tier_directories() {
    printf '%s\n' "$resolved_deck" | awk '
        /^[^ ]/ { inside = ($1 == "checkpoint:") }
        inside && /^    [a-z]+:$/ { tier = $1; sub(/:$/, "", tier) }
        inside && $1 == "directory:" { sub(/^[^:]*:[ ]*/, ""); gsub(/^["'\'']|["'\'']$/, ""); if ($0 != "") print tier, $0 }'
}

# summary_value RESULTS KEY: a number of summary.json.
summary_value() {
    sed -n 's/^  "'"$2"'": *\(-\{0,1\}[0-9][0-9]*\),*$/\1/p' "$1/summary.json" 2>/dev/null
}

# made_progress RESULTS: whether the attempt that has just ended took any step.
made_progress() {
    local from to
    from=$(summary_value "$1" began_at_step)
    to=$(summary_value "$1" steps)
    [ -n "$from" ] && [ -n "$to" ] && [ "$to" -gt "$from" ]
}

# run_slurm_job LAUNCHER... -- QUORATE DECK [ARGUMENT of run]...: one run within a Slurm job. A deck with checkpoints goes on
# from the newest one; warned of the time limit, it leaves a checkpoint, and the job queues itself again. It does not after
# scancel or when Slurm preempts it (which queues it again if it is to), nor when the attempt took no step: the next one would
# take none either.
run_slurm_job() {
    local launch=() status=0 restart=() quorate results
    while [ "$1" != -- ]; do
        launch+=("$1")
        shift
    done
    shift
    quorate=$1
    shift
    resolve_deck "$quorate" "$@" || return
    results=$(deck_value output directory)
    if deck_has_checkpoints; then
        case " $* " in
        *" --restart"*) ;;
        *) restart=(--restart auto) ;;
        esac
        [ "${SLURM_RESTART_COUNT:-0}" -eq 0 ] || say "queued again, $SLURM_RESTART_COUNT time(s) so far"
    fi
    run_forwarding_signals "${launch[@]}" "$quorate" run "$@" "${restart[@]}" || status=$?
    if [ "$status" -ne 75 ] || [ "$stop_signal" != USR1 ]; then
        return "$status"
    fi
    if ! made_progress "$results"; then
        printf 'not queued again: no step was taken in this attempt; give the job more time\n' >&2
    elif scontrol requeue "$SLURM_JOB_ID"; then
        say "queued again, to go on from step $(summary_value "$results" steps)"
        sleep 60 # Slurm ends this script now
    else
        printf 'not queued again: Slurm refuses (sbatch --requeue allows it); submitted again, the job goes on\n' >&2
    fi
    return "$status"
}

# describe_gpus RANKS: the GPUs that Slurm gives the job on this node, in words; a warning where ranks do not fit them.
describe_gpus() {
    local gpus=${SLURM_GPUS_ON_NODE:-0}
    printf '%s GPU%s' "$gpus" "$([ "$gpus" -eq 1 ] || printf s)"
    if [ "$gpus" -gt 0 ] && [ "$1" -ne $((gpus + 1)) ]; then
        printf 'warning: %s ranks on a node for %s GPUs; a rank for each GPU and one for the files make %s\n' \
            "$1" "$gpus" "$((gpus + 1))" >&2
    fi
}

# check_job QUORATE DECK...: says what is wrong with a job before it starts ranks.
check_job() {
    if ! [ -x "$1" ]; then
        printf '%s: no such program; build it first, or set QUORATE (the program) or QUORATE_ROOT (its folder)\n' "$1" >&2
        exit 3
    fi
    if [ $# -lt 2 ] || ! [ -f "$2" ]; then
        printf '%s: no such deck; usage: sbatch SCRIPT DECK [--set key=value]...\n' "${2:-(none)}" >&2
        exit 2
    fi
}

# is_complete RESULTS: true when a run ended there by itself, not by a signal.
is_complete() {
    [ -s "$1/summary.json" ] && ! grep -q '"stopped_by": *"SIG' "$1/summary.json"
}
