#!/bin/sh
# Pins every Python package that requirements*.in lead to, with the hashes of its files, for Debian 12's Python.
# The locks name no registry: whichever one pip is set up with serves them, and the hashes decide.
set -eu
cd "$(dirname "$0")/.."

uv=.venv/bin/uv # lives in .venv only for this; emi does not need it
[ -x "$uv" ] || .venv/bin/pip install --quiet uv

compile() { # OUTPUT INPUT...
    output=$1
    shift
    "$uv" pip compile --python /usr/bin/python3 --generate-hashes --no-header --no-annotate --quiet \
        --output-file "$output" "$@" >/dev/null
}

compile requirements.lock requirements.in requirements-sandbox.in
compile requirements-dev.lock requirements-dev.in
git --no-pager diff --stat -- requirements.lock requirements-dev.lock
