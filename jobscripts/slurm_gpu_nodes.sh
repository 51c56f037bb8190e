#!/usr/bin/env bash
# One simulation on the GPUs of many nodes, with one more rank on each node for its input and output. Submit it from the folder
# in which the deck's relative paths should count; that folder and the results must lie on a file system all nodes share:
#
#   sbatch --nodes=4 --gpus-per-node=8 --ntasks-per-node=9 jobscripts/slurm_gpu_nodes.sh inputs/voter_lattice.yml
#
# Everything after the script's name goes to `quorate run`. The result does not depend on the number of nodes, ranks or GPUs.
#
# -- to edit ---------------------------------------------------------------------------------------------------------
#SBATCH --job-name=quorate
#SBATCH --nodes=2
#SBATCH --gpus-per-node=1
# Ranks of each node: one for each of its GPUs, and one that does the input and output.
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
# The whole node, as ranks of one job share memory with their node's I/O rank.
##SBATCH --exclusive
##SBATCH --mem=0
##SBATCH --partition=YOUR_PARTITION
##SBATCH --account=YOUR_ACCOUNT
# Slurm warns this script 60 s before the time limit. The run then writes what it has; a deck with checkpoints leaves one, and
# the job queues itself again to go on from there. Give it more time when agents or snapshots take long to write.
#SBATCH --signal=B:USR1@60
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=quorate-%j.log
# Clusters: load the modules that Quorate was built with.
# module load gcc openmpi hdf5 cuda nccl
# How ranks are started: mpirun, which asks Slurm for the nodes itself, or srun, on clusters where Slurm speaks PMIx or
# PMI-2 with the MPI library (srun --mpi=list shows what it speaks).
launcher=${QUORATE_LAUNCHER:-mpirun}
# ---------------------------------------------------------------------------------------------------------------------
set -euo pipefail

# Slurm runs a copy of this file, so the folder it came from is given by hand or taken to be where sbatch was called.
root=${QUORATE_ROOT:-${SLURM_SUBMIT_DIR:?run this through sbatch}}
quorate=${QUORATE:-$root/build/quorate}
# shellcheck source=SCRIPTDIR/lib.sh
. "$root/jobscripts/lib.sh"
check_job "$quorate" "$@"

# The deck decides how many ranks of a node do input and output; one is the default, stated here so that it is seen.
set -- "$@" --set io.ranks_per_node="${QUORATE_IO_RANKS_PER_NODE:-1}"

say "job $SLURM_JOB_ID: $SLURM_NTASKS ranks on $SLURM_JOB_NUM_NODES nodes ($SLURM_JOB_NODELIST), by $launcher," \
    "$(describe_gpus $((SLURM_NTASKS / SLURM_JOB_NUM_NODES))) on each"
set_mpi_environment $((SLURM_NTASKS / SLURM_JOB_NUM_NODES))
# Every rank sees all GPUs of its node and takes its own: compute rank r of a node drives GPU r, and moves to the cores next to
# it. So nobody binds ranks before that, and no rank gets a GPU of its own from Slurm (--gpu-bind, --gpus-per-task): ranks
# that cannot see each other's GPUs cannot copy between them.
case $launcher in
mpirun) run_slurm_job mpirun --bind-to none -n "$SLURM_NTASKS" -- "$quorate" "$@" ;;
srun) run_slurm_job srun --mpi="${QUORATE_PMI:-pmix}" --cpu-bind=none --gpu-bind=none --kill-on-bad-exit=1 -- "$quorate" "$@" ;;
*)
    printf 'QUORATE_LAUNCHER is %s; it can be mpirun or srun\n' "$launcher" >&2
    exit 2
    ;;
esac
