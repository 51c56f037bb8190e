#!/usr/bin/env bash
# From an input deck to a picture, on one machine: installs what is missing, builds, runs, plots, says where.
#
#   jobscripts/workstation.sh DECK [--set key=value]... [--ranks N]
#
# Paths in the deck count from the folder you are in. Safe to run again: nothing that is there already is done twice, and
# a run whose results are complete is not repeated. ^C, SIGTERM and SIGUSR1 end the run with its results written.
# Exit codes: Quorate's own (0 done, 2 deck or usage, 3 environment, 4 data or I/O).
set -euo pipefail

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$scripts")
# shellcheck source=SCRIPTDIR/lib.sh
. "$scripts/lib.sh"

usage() {
    sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

deck=
ranks=
settings=()
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

# The deck as the program understands it, without the comments that say who set each value.
resolved=$("$quorate" check "$deck" "${settings[@]}" | sed 's/ *  # .*$//')
# deck_value SECTION KEY: the value without quotes, empty when there is none.
deck_value() {
    printf '%s\n' "$resolved" | awk -v section="$1:" -v key="$2:" '
        /^[^ ]/ { inside = ($1 == section) }
        inside && /^ / && $1 == key { sub(/^[^:]*:[ ]*/, ""); gsub(/^["'\'']|["'\'']$/, ""); print; exit }'
}
results=$(deck_value output directory)
if [ -z "$results" ]; then
    printf 'no output.directory in the resolved deck\n' >&2
    exit 4
fi

# What decides the results: the program, the resolved deck, and the files that the deck names.
fingerprint() {
    local named
    sha256sum <"$quorate"
    printf '%s\n' "$resolved"
    for named in "$(deck_value agents file)" "$(deck_value model weights)" "$(deck_value network file)"; do
        [ -z "$named" ] || sha256sum <"$named"
    done
}
stamp=$(fingerprint | sha256sum | cut -d ' ' -f 1)
stamp_file=$results/workstation.stamp

if is_complete "$results" && [ "$(cat "$stamp_file" 2>/dev/null)" = "done $stamp" ]; then
    say "the results of this deck and this program are complete: $results (not run again)"
else
    if [ -e "$results/series.h5" ] && ! grep -qs '^started ' "$stamp_file"; then
        # Someone else's results, or those of another deck: kept.
        n=1
        while [ -e "$results.$n" ]; do n=$((n + 1)); done
        mv "$results" "$results.$n"
        say "results of another run were in $results: moved to $results.$n"
    fi
    mkdir -p "$results"
    printf 'started %s\n' "$stamp" >"$stamp_file"
    say "running $deck on $ranks ranks ($cores cores)"
    status=0
    # Ranks cannot see whether a person is watching.
    if [ -t 1 ]; then
        export QUORATE_TERMINAL=1
    fi
    run_forwarding_signals mpirun -n "$ranks" "$quorate" run "$deck" "${settings[@]}" --set output.overwrite=true ||
        status=$?
    if [ "$status" -ne 0 ]; then
        printf 'the run ended with exit code %d; what it left is in %s\n' "$status" "$results" >&2
        exit "$status"
    fi
    # A run that was told to stop is not complete: the next call starts it anew.
    if is_complete "$results"; then
        printf 'done %s\n' "$stamp" >"$stamp_file"
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
