#!/bin/sh
# Runs the benchmarks one after another: all of bench/, or those named (`tools/bench.sh overhead`).
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- bench/*.py
for bench in "$@"; do
    name=$(basename "$bench" .py)
    printf '\n== bench/%s\n' "$name"
    .venv/bin/python "bench/$name.py"
done
