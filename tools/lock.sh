#!/bin/sh
# Pins every Python package that requirements*.in lead to, with the hashes of its files, for Debian 12's Python.
# What is pinned and still fits stays as it is; `tools/lock.sh --upgrade` takes the newest of everything.
# The locks name no registry: whichever one pip is set up with serves them, and the hashes decide.
set -eu
cd "$(dirname "$0")/.."

uv=.venv/bin/uv # lives in .venv only for this; emi does not need it
[ -x "$uv" ] || .venv/bin/pip install --quiet uv

compile() { # OUTPUT WORDS...
    output=$1
    shift
    "$uv" pip compile --python /usr/bin/python3 --generate-hashes --no-header --no-annotate --quiet \
        --output-file "$output" "$@" >/dev/null
}

compile requirements-dev.lock requirements-dev.in "$@"
# What runs is what was tested: the versions come from the first lock.
compile requirements.lock requirements.in --constraint requirements-dev.lock
git --no-pager diff --stat -- requirements.lock requirements-dev.lock
