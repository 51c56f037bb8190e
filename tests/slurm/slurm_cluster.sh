# shellcheck shell=bash
# A real Slurm on this machine for as long as a test lasts: munged, slurmctld and two slurmd, which stand for two nodes.
# Everything they write lies under one temporary folder. Sourced, never run.
#
#   slurm_cluster_start DIRECTORY   starts it; Slurm's commands use it from then on; 77 when Slurm is not installed.
#                                   cluster_nodes is then 2, or 1 where nobody may give a process a host name of its own
#   slurm_cluster_stop              stops every process that start started; safe to call twice, and after a failed start

cluster_directory=
cluster_processes=()
cluster_nodes=0

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# wait_for SECONDS COMMAND...: true as soon as the command is.
wait_for() {
    local until=$((SECONDS + $1))
    shift
    while ! "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$until" ] || return 1
        sleep 0.2
    done
}

slurm_nodes_idle() {
    [ "$(sinfo -h -N -o '%t' | grep -cx idle)" -eq "$cluster_nodes" ]
}

slurm_cluster_start() {
    local tool host user version node as_host
    local nodes=(qn1 qn2)
    PATH=$PATH:/usr/sbin:/sbin
    for tool in munged slurmctld slurmd sbatch scancel sinfo; do
        command -v "$tool" >/dev/null || return 77
    done
    # Open MPI names the memory that ranks of a node share after its host: two nodes need two host names.
    as_host=(unshare --uts)
    if ! unshare --uts true 2>/dev/null; then
        as_host=(env)
        nodes=(qn1)
    fi
    cluster_nodes=${#nodes[@]}
    cluster_directory=$1
    host=$(hostname -s)
    user=$(id -un)
    mkdir -p "$cluster_directory"/{munge,state,log,spool-qn1,spool-qn2,tmp-qn1,tmp-qn2}
    chmod 755 "$cluster_directory"
    chmod 700 "$cluster_directory/munge"

    (umask 077 && head -c 1024 /dev/urandom >"$cluster_directory/munge/key")
    chmod 711 "$cluster_directory/munge"
    cat >"$cluster_directory/slurm.conf" <<EOF
ClusterName=quorate-test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$cluster_directory/munge/socket
CredType=cred/munge
StateSaveLocation=$cluster_directory/state
SlurmdSpoolDir=$cluster_directory/spool-%n
TmpFS=$cluster_directory/tmp-%n
SlurmctldPidFile=$cluster_directory/slurmctld.pid
SlurmdPidFile=$cluster_directory/slurmd-%n.pid
SlurmctldLogFile=$cluster_directory/log/slurmctld.log
SlurmdLogFile=$cluster_directory/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=2,bf_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=20
MaxArraySize=100
GresTypes=gpu
$(for node in "${nodes[@]}"; do echo "NodeName=$node NodeAddr=127.0.0.1 Port=$(free_port) CPUs=4 Gres=gpu:2"; done)
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOF
    # GPUs as far as Slurm is concerned: it counts files.
    touch "$cluster_directory"/gpu{0,1}
    echo "Name=gpu File=$cluster_directory/gpu[0-1]" >"$cluster_directory/gres.conf"
    # Nothing here uses cgroups, yet slurmd insists on them. From 24.05 on it can be told not to; earlier versions do not
    # know the word, but take any folder for the place where cgroups are mounted.
    version=$(slurmd -V | awk '{print $NF}')
    if [ "$(printf '%s\n24.05\n' "$version" | sort -V | head -n 1)" = 24.05 ]; then
        echo "CgroupPlugin=disabled" >"$cluster_directory/cgroup.conf"
    else
        mkdir -p "$cluster_directory/cgroup"
        printf '%s\n' CgroupPlugin=cgroup/v1 "CgroupMountpoint=$cluster_directory/cgroup" \
            >"$cluster_directory/cgroup.conf"
    fi
    export SLURM_CONF=$cluster_directory/slurm.conf

    # pdeathsig: should this test be killed, its daemons end with it.
    setpriv --pdeathsig TERM munged --foreground --force --key-file="$cluster_directory/munge/key" --socket="$cluster_directory/munge/socket" \
        --pid-file="$cluster_directory/munge/pid" --seed-file="$cluster_directory/munge/seed" \
        --log-file="$cluster_directory/log/munged.log" >"$cluster_directory/log/munged.out" 2>&1 &
    cluster_processes+=($!)
    wait_for 10 test -S "$cluster_directory/munge/socket" || return 1
    setpriv --pdeathsig TERM slurmctld -D -i -f "$SLURM_CONF" >"$cluster_directory/log/slurmctld.out" 2>&1 &
    cluster_processes+=($!)
    wait_for 20 scontrol ping || return 1
    for node in "${nodes[@]}"; do
        # shellcheck disable=SC2016  # expanded by the inner shell
        setpriv --pdeathsig TERM "${as_host[@]}" sh -c '[ "$1" != unshare ] || hostname "$2"
            exec slurmd -D -N "$2" -f "$SLURM_CONF"' slurmd "${as_host[0]}" "$node" >"$cluster_directory/log/slurmd-$node.out" 2>&1 &
        cluster_processes+=($!)
    done
    wait_for 30 slurm_nodes_idle
}

slurm_cluster_stop() {
    local process
    [ ${#cluster_processes[@]} -gt 0 ] || return 0
    timeout 10 scancel --user="$(id -un)" 2>/dev/null || true
    wait_for 10 no_jobs || true
    # The other way round: slurmd first, munged last.
    for ((i = ${#cluster_processes[@]} - 1; i >= 0; i--)); do
        process=${cluster_processes[i]}
        kill -TERM "$process" 2>/dev/null || continue
        wait_for 10 is_gone "$process" || kill -KILL "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    cluster_processes=()
}

no_jobs() {
    [ -z "$(timeout 5 squeue -h)" ]
}

# job_is_over ID: it is neither waiting nor running, nor is any task of it.
job_is_over() {
    local left
    left=$(timeout 5 squeue -h -j "$1") && [ -z "$left" ]
}

# A process that has ended but was not waited for still answers kill -0.
is_gone() {
    ! kill -0 "$1" 2>/dev/null || [ "$(awk '{print $3}' "/proc/$1/stat" 2>/dev/null)" = Z ]
}
