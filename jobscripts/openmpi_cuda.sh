#!/usr/bin/env bash
# Builds an Open MPI with CUDA support, for workstations: the distribution's own has none. With it, comm.exchange: mpi-cuda
# sends votes from GPU to GPU. Clusters have such a library as a module.
#
#   jobscripts/openmpi_cuda.sh [PREFIX]           PREFIX: ~/.local/share/quorate/openmpi-cuda
#
# The source is the distribution's source package, so versions fit the rest of the system. CUDA's headers are needed
# (CUDA_HOME, or nvcc on PATH, or /usr/local/cuda), a GPU is not. QUORATE_JOBS: compilers at a time, all cores by default.
# Safe to run again: what is finished is not done twice, and PREFIX holds nothing until all of it is built. Exit codes: 0
# it is there, 2 usage, 3 something is missing or the build failed.
set -euo pipefail

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=SCRIPTDIR/lib.sh
. "$scripts/lib.sh"

die() {
    printf 'openmpi_cuda: %s\n' "$*" >&2
    exit 3
}

case ${1:-} in
-*)
    sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
prefix=${1:-${XDG_DATA_HOME:-$HOME/.local/share}/quorate/openmpi-cuda}
case $prefix in
/*) ;;
*) prefix=$PWD/$prefix ;;
esac

advise() {
    say "ready: $prefix. To use it, build Quorate with it first on PATH, in a build folder of its own, and run it so:"
    # shellcheck disable=SC2016  # expanded by the shell that gets the line
    printf 'export PATH=%s:$PATH\n' "$prefix/bin"
}

has_cuda() {
    "$1/bin/ompi_info" --parsable --all 2>/dev/null |
        grep 'mpi_built_with_cuda_support:value:true' >/dev/null
}

if [ -x "$prefix/bin/mpirun" ] && has_cuda "$prefix"; then
    say "an Open MPI with CUDA support is in $prefix already"
    advise
    exit 0
fi
if [ -e "$prefix" ] && [ -n "$(ls -A "$prefix")" ]; then
    die "$prefix holds something else; name an empty folder, or remove it"
fi

cuda=${CUDA_HOME:-}
if [ -z "$cuda" ]; then
    nvcc=$(command -v nvcc || true)
    cuda=${nvcc:+$(dirname "$(dirname "$(readlink -f "$nvcc")")")}
    cuda=${cuda:-/usr/local/cuda}
fi
[ -e "$cuda/include/cuda.h" ] || die "no CUDA headers in $cuda/include; install the CUDA toolkit or set CUDA_HOME"
for tool in apt-get dpkg-source gcc make perl; do
    command -v "$tool" >/dev/null || die "$tool is missing; install the packages build-essential, dpkg-dev and perl"
done

work=$prefix.build
mkdir -p "$work"
log=$work/build.log
: >"$log"

# The sources' place, from the system's own lists and in an apt of our own: no need for root, and nothing of the system
# changes.
fetch_source() {
    local apt=$work/apt part
    mkdir -p "$apt"/{lists/partial,archives/partial,sources.d}
    : >"$apt/sources.d/all.list"
    for part in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ -e "$part" ] || continue
        sed -n 's/^deb /deb-src /p' "$part" >>"$apt/sources.d/all.list"
    done
    for part in /etc/apt/sources.list.d/*.sources; do
        [ -e "$part" ] || continue
        sed 's/^Types:.*/Types: deb-src/' "$part" >"$apt/sources.d/$(basename "$part")"
    done
    local options=(-o Dir::State::lists="$apt/lists" -o Dir::Cache::archives="$apt/archives" -o Dir::Etc::sourcelist=/dev/null
        -o Dir::Etc::sourceparts="$apt/sources.d" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=)
    apt-get "${options[@]}" update >>"$log" 2>&1 || return 1
    (cd "$work" && apt-get "${options[@]}" source --download-only openmpi >>"$log" 2>&1)
}

unpack_source() {
    local description
    description=$(find "$work" -maxdepth 1 -name 'openmpi_*.dsc' | sort -V | tail -n 1)
    [ -n "$description" ] || return 1
    rm -rf "$work/source"
    dpkg-source --no-check -x "$description" "$work/source" >>"$log" 2>&1 || return 1
    # The distribution's patches leave some files younger than what autotools made of them; all of one age, nothing is made
    # again, and autotools are not needed.
    find "$work/source" -exec touch -h -r "$description" {} +
}

failed() {
    tail -n 30 "$log" >&2
    die "$1; all of its output is in $log"
}

if ! [ -x "$work/source/configure" ]; then
    say "fetching the source of the distribution's Open MPI into $work"
    fetch_source || failed "the source package could not be fetched (is there a network?)"
    unpack_source || failed "the source package could not be unpacked"
fi

# Its own copies of the small libraries, and no network stacks or languages that a workstation does not need.
if ! [ -e "$work/built/Makefile" ]; then
    say "configuring it with CUDA of $cuda"
    mkdir -p "$work/built"
    (cd "$work/built" && ../source/configure --prefix="$prefix" --with-cuda="$cuda" --enable-mpi-fortran=no \
        --without-verbs --without-ucx --without-ofi --without-psm --without-psm2 --disable-oshmem --with-pmix=internal \
        --with-libevent=internal --with-hwloc=internal --with-slurm --disable-silent-rules) >>"$log" 2>&1 ||
        { rm -f "$work/built/Makefile" && failed "configure failed"; }
fi
jobs=${QUORATE_JOBS:-$(nproc)}
say "building it with $jobs compilers at a time; two need some ten minutes"
make -C "$work/built" -j "$jobs" >>"$log" 2>&1 || failed "the build failed"
say "installing it into $prefix"
rm -rf "$work/installed"
make -C "$work/built" install DESTDIR="$work/installed" >>"$log" 2>&1 || failed "the installation failed"
mkdir -p "$(dirname "$prefix")"
[ ! -e "$prefix" ] || rmdir "$prefix"
mv "$work/installed$prefix" "$prefix"
has_cuda "$prefix" || die "what was built says that it has no CUDA support; see $log"
rm -rf "$work"
advise
