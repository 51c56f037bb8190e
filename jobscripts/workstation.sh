#!/usr/bin/env bash
# From an input deck to a picture, on one machine: installs what is missing, builds, runs, plots, says where.
#
#   jobscripts/workstation.sh DECK [--set key=value]... [--ranks N] [--restart auto|DIR]
#
# Paths in the deck count from the folder you are in. Safe to run again: nothing that is there already is done twice, and
# a run whose results are complete is not repeated. ^C, SIGTERM and SIGUSR1 end the run with its results written; where the
# deck has checkpoints the same command goes on from there, also after a crash. --restart goes on with a deck that was changed
# where a restart may change it (more steps, say). Exit codes: Quorate's own (0 done, 2 deck or usage, 3 environment, 4 data
# or I/O, 75 stopped with a checkpoint).
set -euo pipefail

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$scripts")
# shellcheck source=SCRIPTDIR/lib.sh
. "$scripts/lib.sh"

usage() {
    sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

deck=
ranks=
settings=()
restart=()
while [ $# -gt 0 ]; do
    case $1 in
    --set)
        [ $# -ge 2 ] || usage
        settings+=(--set "$2")
        shift
        ;;
    --ranks)
        [ $# -ge 2 ] || usage
        ranks=$2
        shift
        ;;
    --restart)
        [ $# -ge 2 ] || usage
        restart=(--restart "$2")
        shift
        ;;
    -*) usage ;;
    *)
        [ -z "$deck" ] || usage
        deck=$1
        ;;
    esac
    shift
done
[ -n "$deck" ] || usage
case $ranks in *[!0-9]* | 0*) usage ;; esac
if ! [ -f "$deck" ]; then
    printf '%s: no such deck\n' "$deck" >&2
    exit 2
fi

"$scripts/install_packages.sh" build plot

build=$root/build
say "building into $build"
options=()
# Whether the tests are built is decided by whoever made the folder; the program alone needs fewer packages.
[ -e "$build/CMakeCache.txt" ] || options+=(-DQUORATE_TESTS=OFF)
configure_and_build "$root" "$build" "$build/workstation.log" "${options[@]}" -- quorate
quorate=$build/quorate

cores=$(count_cores)
set_mpi_environment "$cores"
# One rank of a node does the input and output; it mostly sleeps, so on few cores it comes on top of them.
if [ -z "$ranks" ]; then
    ranks=$cores
    [ "$cores" -gt 4 ] || ranks=$((cores + 1))
fi

resolve_deck "$quorate" "$deck" "${settings[@]}"
results=$(deck_value output directory)
if [ -z "$results" ]; then
    printf 'no output.directory in the resolved deck\n' >&2
    exit 4
fi

# What decides the results: the resolved deck, the files that the deck names, and the program.
fingerprint() {
    local named
    printf '%s\n' "$resolved_deck"
    for named in "$(deck_value agents file)" "$(deck_value model weights)" "$(deck_value network file)"; do
        [ -z "$named" ] || sha256sum <"$named"
    done
}
deck_stamp=$(fingerprint | sha256sum | cut -d ' ' -f 1)
stamp=$(printf '%s' "$deck_stamp" | cat - "$quorate" | sha256sum | cut -d ' ' -f 1)
# Two lines: how far the results are ("started" or "done") and what decides them; the same without the program.
stamp_file=$results/workstation.stamp
stopped=0

if [ ${#restart[@]} -eq 0 ] && is_complete "$results" && grep -qsx "done $stamp" "$stamp_file"; then
    say "the results of this deck and this program are complete: $results (not run again)"
else
    keep=
    overwrite=(--set output.overwrite=true)
    if [ ${#restart[@]} -gt 0 ]; then
        overwrite=()
    elif deck_has_checkpoints && grep -qsx "deck $deck_stamp" "$stamp_file"; then
        restart=(--restart auto)
    elif deck_has_checkpoints; then
        # Checkpoints of another run, in directories that are not moved aside with its results, are not to be lost.
        overwrite=()
        keep=yes
    elif ! grep -qs '^started ' "$stamp_file"; then
        keep=yes
    fi
    if [ -n "$keep" ] && [ -e "$results/series.h5" ]; then
        # Someone else's results, or those of another deck: kept.
        n=1
        while [ -e "$results.$n" ]; do n=$((n + 1)); done
        mv "$results" "$results.$n"
        say "results of another run were in $results: moved to $results.$n"
    fi
    mkdir -p "$results"
    printf 'started %s\ndeck %s\n' "$stamp" "$deck_stamp" >"$stamp_file"
    say "running $deck on $ranks ranks ($cores cores)"
    status=0
    # Ranks cannot see whether a person is watching.
    if [ -t 1 ]; then
        export QUORATE_TERMINAL=1
    fi
    run_forwarding_signals mpirun -n "$ranks" "$quorate" run "$deck" "${settings[@]}" "${overwrite[@]}" "${restart[@]}" ||
        status=$?
    if [ "$status" -eq 75 ]; then
        say "the run was stopped with a checkpoint: the same command goes on from there"
        stopped=$status
    elif [ "$status" -ne 0 ]; then
        [ -e "$results/series.h5" ] || rm -f "$stamp_file" # it did not even begin
        printf 'the run ended with exit code %d; what it left is in %s\n' "$status" "$results" >&2
        exit "$status"
    fi
    # A run that was told to stop is not complete: the next call starts it anew.
    if [ "$stopped" -ne 0 ]; then
        :
    elif is_complete "$results"; then
        printf 'done %s\ndeck %s\n' "$stamp" "$deck_stamp" >"$stamp_file"
    else
        say "the run was stopped early; its results up to then are in $results"
    fi
fi

plot=$results/shares.png
if [ -e "$plot" ] && [ "$plot" -nt "$results/series.h5" ] && [ "$plot" -nt "$root/postproc/plot.py" ]; then
    say "the plots are up to date"
else
    say "plotting"
    python=$(find_python)
    "$python" "$root/postproc/plot.py" "$results"
fi

say "done. Everything is in $results:"
find "$results" -maxdepth 1 -type f -size +0 ! -name workstation.stamp -printf '     %f  (%s bytes)\n' | sort
exit "$stopped"
