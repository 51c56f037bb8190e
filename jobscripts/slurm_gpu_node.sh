#!/usr/bin/env bash
# One simulation on the GPUs of one node. Submit it from the folder in which the deck's relative paths should count:
#
#   sbatch --gpus-per-node=4 --ntasks=5 jobscripts/slurm_gpu_node.sh inputs/voter_lattice.yml --set compute.backend=cuda
#
# Everything after the script's name goes to `quorate run`. With compute.backend: auto, the default, a job without GPUs runs on
# the node's cores.
#
# -- to edit ---------------------------------------------------------------------------------------------------------
#SBATCH --job-name=quorate
#SBATCH --nodes=1
#SBATCH --gpus-per-node=1
# Ranks: one for each GPU, and one that does the input and output (io.ranks_per_node).
#SBATCH --ntasks=2
# Cores of each rank; they build the network, and write results.
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
# Memory: `quorate run DECK --dry-run` under the same number of ranks says what they need.
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
# ---------------------------------------------------------------------------------------------------------------------
set -euo pipefail

# Slurm runs a copy of this file, so the folder it came from is given by hand or taken to be where sbatch was called.
root=${QUORATE_ROOT:-${SLURM_SUBMIT_DIR:?run this through sbatch}}
quorate=${QUORATE:-$root/build/quorate}
# shellcheck source=SCRIPTDIR/lib.sh
. "$root/jobscripts/lib.sh"
check_job "$quorate" "$@"

say "job $SLURM_JOB_ID: $SLURM_NTASKS ranks on $SLURM_JOB_NODELIST, $(describe_gpus "$SLURM_NTASKS")"
set_mpi_environment "$SLURM_NTASKS"
# Every rank sees all GPUs of the node and takes its own: compute rank r of the node drives GPU r, and moves to the cores next
# to it; mpirun must not bind ranks before that.
run_slurm_job mpirun --bind-to none -n "$SLURM_NTASKS" -- "$quorate" "$@"
