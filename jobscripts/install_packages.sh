#!/usr/bin/env bash
# Installs the distribution's packages that Quorate needs: the one place that knows their names.
#
#   jobscripts/install_packages.sh [GROUP...]     groups: build plot test; none = build plot
#
# Works on Debian 12 and Ubuntu 24.04, as root or through sudo. Only what is missing is installed, so a second call asks
# nobody for anything, and works without a network. Exit codes: 0 everything is there, 3 it could not be installed.
set -euo pipefail

die() {
    printf 'install_packages: %s\n' "$*" >&2
    exit 3
}

# What the compiler, the linker and mpirun need.
build_packages=(gcc libc6-dev cmake ninja-build pkg-config libopenmpi-dev openmpi-bin libhdf5-dev libzstd-dev liblz4-dev
    libyaml-dev libxxhash-dev libhwloc-dev libjansson-dev zlib1g-dev util-linux)
# What postproc/ needs.
plot_packages=(python3 python3-numpy python3-h5py python3-matplotlib)
# What tests/run.sh needs beside these. libc6-dbg: valgrind's own requirement. qemu-user: a processor without FMA.
# hdf5-filter-plugin: so that stock h5py reads LZ4.
test_packages=(libcmocka-dev clang clang-tidy shellcheck valgrind libc6-dbg slurm-wlm munge qemu-user hdf5-tools
    hdf5-filter-plugin procps git)

# A fresh clang without recommended packages lacks the sanitizers and OpenMP; their packages carry clang's version.
# shellcheck source=/dev/null
distribution=$(. /etc/os-release 2>/dev/null && printf '%s-%s' "${ID:-unknown}" "${VERSION_ID:-unknown}") || true
case $distribution in
debian-12) test_packages+=(libclang-rt-14-dev libomp-14-dev) ;;
ubuntu-24.04) test_packages+=(libclang-rt-18-dev libomp-18-dev) ;;
*)
    if ! command -v apt-get >/dev/null; then
        die "this is ${distribution:-an unknown system}; packages are known for Debian 12 and Ubuntu 24.04 only." \
            "README.md lists what to install by hand"
    fi
    printf 'install_packages: %s is untested; trying the names of Debian 12\n' "$distribution" >&2
    test_packages+=(libclang-rt-dev libomp-dev)
    ;;
esac

[ $# -gt 0 ] || set -- build plot
wanted=()
for group; do
    case $group in
    build) wanted+=("${build_packages[@]}") ;;
    plot) wanted+=("${plot_packages[@]}") ;;
    test) wanted+=("${test_packages[@]}") ;;
    *) die "unknown group '$group'; groups are build, plot and test" ;;
    esac
done

missing=()
for package in "${wanted[@]}"; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || state=none
    [ "$state" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    printf 'packages: all %d are there\n' "${#wanted[@]}"
    exit 0
fi
printf 'packages: installing %s\n' "${missing[*]}"

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    by_hand="apt-get install --no-install-recommends ${missing[*]}"
    command -v sudo >/dev/null || die "not root, and there is no sudo; as root, run: $by_hand"
    as_root=(sudo)
    if ! [ -t 0 ]; then
        sudo -n true 2>/dev/null || die "sudo would ask for a password, but nobody can type one here; as root, run: $by_hand"
    fi
fi
apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 \
        -o Acquire::Retries=3 "$@" </dev/null
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Old package lists may still do, for instance with a local mirror: so a failed update is not yet the end.
apt update >"$log" 2>&1 || printf 'packages: the package lists could not be refreshed; trying with the old ones\n' >&2
if ! apt install -y --no-install-recommends "${missing[@]}" >>"$log" 2>&1; then
    tail -n 20 "$log" >&2
    die "apt-get could not install the packages above; its last lines are shown"
fi
printf 'packages: done\n'
