#!/usr/bin/env bash
# Many runs of one deck, each with its own seed and its own results directory: how often does each option win?
#
#   sbatch --array=1-100 jobscripts/slurm_array.sh inputs/nest_site.yml --set agents.count=1e4
#
# Task 17 runs with --set run.seed=17 and writes results/<deck>/seed_0017 (QUORATE_RESULTS=DIR: DIR/seed_0017). A task whose
# results are complete is skipped, so the same command again runs only what is missing.
#
# -- to edit ---------------------------------------------------------------------------------------------------------
#SBATCH --job-name=quorate-seeds
# Seeds; "1-100%8" runs at most 8 at a time.
#SBATCH --array=1-10
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
##SBATCH --partition=YOUR_PARTITION
##SBATCH --account=YOUR_ACCOUNT
# Slurm warns this script 60 s before the time limit. The run then writes what it has; a deck with checkpoints leaves one, and
# the job queues itself again to go on from there. Give it more time when agents or snapshots take long to write.
#SBATCH --signal=B:USR1@60
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=quorate-%A_%a.log
# Clusters: load the modules that Quorate was built with.
# module load gcc openmpi hdf5
# ---------------------------------------------------------------------------------------------------------------------
set -euo pipefail

# Slurm runs a copy of this file, so the folder it came from is given by hand or taken to be where sbatch was called.
root=${QUORATE_ROOT:-${SLURM_SUBMIT_DIR:?run this through sbatch}}
quorate=${QUORATE:-$root/build/quorate}
# shellcheck source=SCRIPTDIR/lib.sh
. "$root/jobscripts/lib.sh"
check_job "$quorate" "$@"

seed=${SLURM_ARRAY_TASK_ID:?this script is for job arrays: sbatch --array=1-10 ...}
name=$(basename "$1")
results=${QUORATE_RESULTS:-results/${name%.*}}/$(printf 'seed_%04d' "$seed")
if is_complete "$results"; then
    say "seed $seed: $results is complete"
    exit 0
fi

# Each seed has its checkpoints in a folder of its own, too.
resolve_deck "$quorate" "$@"
while read -r tier directory; do
    set -- "$@" --set "checkpoint.tiers.$tier.directory=$directory/$(basename "$results")"
done < <(tier_directories)

say "job $SLURM_JOB_ID: seed $seed, $SLURM_NTASKS ranks, into $results"
set_mpi_environment "$SLURM_NTASKS"
run_slurm_job mpirun -n "$SLURM_NTASKS" -- "$quorate" "$@" \
    --set run.seed="$seed" --set output.directory="$results" --set output.overwrite=true
