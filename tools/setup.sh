#!/bin/sh
# Installs what is missing to run, test and develop emi: Debian packages, then .venv. Safe to repeat, and instant when
# nothing is missing: then it needs neither root nor the network. With --bench, also what only benchmarks need.
set -eu

cd "$(dirname "$0")/.."
packages_file=tools/debian-packages.txt
python=/usr/bin/python3 # the distribution's: its guestfs binding is for that one only
binding=/usr/lib/python3/dist-packages # where python3-guestfs has it
stamp=.venv/emi-setup

# A user's Python and pip settings must not lead elsewhere; all other settings (an index, a proxy) are respected.
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV
export PIP_USER=0 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_REQUIRE_VIRTUALENV=0

say() { printf 'setup: %s\n' "$*" >&2; }
fail() {
    say "$1"
    [ $# -lt 2 ] || printf '       %s\n' "$2" >&2
    exit 1
}

# Two `make` at once: the second waits for the first. --close keeps the lock from daemons that packages start.
if [ "${1-}" != --locked ]; then
    mkdir -p .cache
    exec flock --close .cache/setup.lock sh tools/setup.sh --locked "$@"
fi
[ "${2-}" = --bench ] && last='$' || last='/^# to bench/' # line of the package list to read up to

kernel_here() {
    for kernel in /boot/vmlinuz-*; do
        [ -e "$kernel" ] && [ -d "/lib/modules/${kernel#/boot/vmlinuz-}" ] && return 0
    done
    return 1
}

installed() { # PACKAGE
    case $1 in linux-image-*) kernel_here && return 0 ;; esac
    [ "$(dpkg-query --show --showformat '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

missing_packages() {
    sed "1,$last!d" "$packages_file" | sed 's/[[:space:]]*#.*//; /^$/d' | while read -r package; do
        installed "$package" || printf '%s ' "$package"
    done
}

apt() { # WORDS OF APT-GET
    # Other apt runs (unattended upgrades, a second clone) are waited for, up to 5 minutes.
    $sudo env DEBIAN_FRONTEND=noninteractive LC_ALL=C apt-get --quiet -o Dpkg::Use-Pty=0 \
        -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" </dev/null >&2
}

update_lists() {
    # `apt-get update` does not wait for the lock of its lists, so the wait is here.
    for _ in $(seq 30); do
        if said=$(apt update 2>&1); then return 0; fi
        case $said in *"Could not get lock"*) sleep 10 ;; *) break ;; esac
    done
    printf '%s\n' "$said" >&2
    say "apt-get update failed; trying with the package lists that are here"
}

enabled_units() {
    command -v systemctl >/dev/null || return 0
    systemctl list-unit-files --state=enabled --no-legend --plain 2>/dev/null | sed 's/[[:space:]].*//'
}

switch_off_services() { # UNITS ENABLED BEFORE
    # emi, its tests and its benchmarks start what they need themselves; what the packages (Ceph, nginx, and what they
    # depend on) have let systemd start, now and at each boot, nobody has asked for.
    [ -n "$1" ] || return 0 # systemd was not there before: what it enables on its arrival is the system's own
    units=$(enabled_units | grep -vxF "$1") || return 0
    # shellcheck disable=SC2086 # words of a list
    say "switching off the services that came with them:" $units
    # shellcheck disable=SC2086
    $sudo systemctl --quiet disable $units >&2 || say "systemctl did not; they remain as Debian's packages set them"
    # shellcheck disable=SC2086
    [ ! -d /run/systemd/system ] || $sudo systemctl stop $units >&2 || :
}

install_packages() {
    missing=$(missing_packages)
    [ -n "$missing" ] || return 0
    say "these Debian packages are missing and will be installed by apt-get:"
    for package in $missing; do
        sed -n "s/^${package}[[:space:]]*#\(.*\)/         $package:\1/p" "$packages_file" >&2
    done
    if [ "$(id -u)" = 0 ]; then
        sudo=
    elif command -v sudo >/dev/null; then
        sudo=sudo
        say "sudo may ask for your password"
    else
        fail "installing packages needs root and there is no sudo here; as root, run:" \
            "apt-get update && apt-get install --no-install-recommends $missing"
    fi
    units_before=$(enabled_units)
    # A machine may come without package lists, or with lists so old that what they name is gone from the mirror.
    # shellcheck disable=SC2086 # words of a list
    apt install --yes --no-install-recommends --simulate $missing >/dev/null 2>&1 || update_lists
    # shellcheck disable=SC2086
    apt install --yes --no-install-recommends $missing || {
        update_lists
        apt install --yes --no-install-recommends $missing
    } || fail "apt-get could not install them; its own words are above. By hand:" \
        "apt-get update && apt-get install --no-install-recommends $missing"
    switch_off_services "$units_before"
}

readable_kernel() {
    for kernel in /boot/vmlinuz-*; do
        [ -r "$kernel" ] && return 0
    done
    fail "no kernel in /boot can be read by $(id -un), and the appliance boots from one. As root, run:" \
        "chmod a+r /boot/vmlinuz-*"
}

fingerprint() {
    { "$python" --version && pwd -P && cat requirements*.in requirements-dev.lock pyproject.toml tools/setup.sh; } | sha256sum
}

make_environment() {
    wanted=$(fingerprint)
    if [ -x .venv/bin/emi ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && .venv/bin/python -c '' 2>/dev/null; then
        return 0
    fi
    say "installing the locked Python packages into .venv (a minute or two)"
    # A copied or moved .venv, or one of another Python, is made anew: its scripts name their old place.
    if ! .venv/bin/python -c '' 2>/dev/null || ! grep -qsF "$(pwd -P)/.venv" .venv/bin/activate ||
        grep -qs '^include-system-site-packages = true' .venv/pyvenv.cfg; then
        rm -rf .venv
    fi
    [ -x .venv/bin/pip ] || "$python" -m venv .venv
    # Of the distribution's Python packages this one only: others that happen to be installed (pyOpenSSL, awscrt) would
    # be taken up unpinned by ours, and slow every start.
    ln -sf "$binding"/guestfs.py "$binding"/libguestfsmod.*.so .venv/lib/python3*/site-packages/
    .venv/bin/pip install --quiet --no-compile --require-hashes --requirement requirements-dev.lock </dev/null >&2
    # pip compiles one file after the other, and half as fast. What does not compile is nothing that is imported.
    .venv/bin/python -m compileall -q -j 2 .venv/lib/python3*/site-packages </dev/null >/dev/null 2>&1 || :
    .venv/bin/pip install --quiet --no-deps --no-build-isolation --editable . </dev/null >&2
    printf '%s\n' "$wanted" >"$stamp"
}

command -v dpkg-query >/dev/null || fail "this is not Debian, so its packages cannot be installed here." \
    "$packages_file lists what emi needs; a Debian 12 machine or container has it all."
install_packages
readable_kernel
make_environment
